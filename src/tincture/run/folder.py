"""The folder of a run: ``LOGS/DATE/NAME/`` with everything that a run writes, laid out as the webui does.

run.json                    settings and what else a resume needs
settings-DATE-TIME.json     the webui's settings file
start.pt                    the adapter as it was before the first step (or .safetensors, as its file has it)
start-2.pt ...              the same of those that are trained together with it
state/step-NUMBER.pt        training states
embeddings/ hypernetworks/  copies of the adapter, NAME-STEP.pt, and the best by validation, NAME-best.pt
images/                     previews and their contact sheet
KIND_loss.csv, validation_loss.csv, tensorboard/ logs
preview-now                 asks for previews after the present step, see preview_request

Nothing here loads torch.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from tincture.errors import FileFormatError, StorageError
from tincture.formats.files import write_text
from tincture.kinds.registry import find_kind
from tincture.run.result import COMPANIONS
from tincture.settings.train import TrainSettings
from tincture.workspace import ADAPTER_SUFFIX

RECORD = "run.json"
RUN_LOCK = ".lock"
"""In the folder of a run: held by the process that works at it."""
VALIDATION_LOG = "validation_loss.csv"
_CHECKSUM = "checksum"
_RECORDED = {"settings", "root", "adapter_path", "model_hash", "data_hash", "template_lines"}


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Paths of one run, as one of its adapters sees them.

    Attributes:
        kind: of the adapter.
        suffix: of the adapter's file, which its copies are like.
        number: of the adapter among those that are trained together.
    """

    path: Path
    kind: str
    suffix: str = ADAPTER_SUFFIX
    number: int = 0

    @classmethod
    def create(cls, logs: Path, kind: str, name: str, suffix: str = ADAPTER_SUFFIX) -> RunFolder:
        """Makes a new folder under today's date; a name that is taken gets a number, and nothing is overwritten.

        Raises:
            StorageError: the folder cannot be made.
        """
        day = logs / datetime.date.today().isoformat()
        # Made and not merely chosen: a run that begins at the same moment takes the next number.
        return cls(next(path for path in _numbered(day / name) if _made(path)), kind, suffix)

    def of_each(self, settings: TrainSettings, paths: Sequence[Path]) -> list[RunFolder]:
        """The same folder as each of the run's adapters sees it, whose files are ``paths``."""
        return [
            RunFolder(self.path, kind, path.suffix, number)
            for number, ((kind, _), path) in enumerate(zip(settings.adapters, paths, strict=True))
        ]

    @property
    def record(self) -> Path:
        return self.path / RECORD

    @property
    def start(self) -> Path:
        return self.path / f"start{f'-{self.number + 1}' if self.number else ''}{self.suffix}"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def copies(self) -> Path:
        return self.path / find_kind(self.kind).plural

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def image_embeddings(self) -> Path:
        return self.path / "image_embeddings"

    @property
    def csv(self) -> Path:
        return self.path / find_kind(self.kind).losses

    @property
    def validation_csv(self) -> Path:
        return self.path / VALIDATION_LOG

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


def _made(path: Path) -> bool:
    """Makes a folder and those above it; False when something of that name is there already."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(
            f"The folder {path} could not be made: {error.strerror or error}. Choose another one by --log-dir."
        ) from error
    return True


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes ``values`` as indented JSON, whole or not at all."""
    write_text(path, _laid_out(values))


def _laid_out(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def write_record(folder: Path, values: Mapping[str, Any]) -> None:
    """Writes ``run.json`` in ``folder``, with a checksum of ``values``."""
    write_json(folder / RECORD, {**values, _CHECKSUM: _checksum(values)})


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def noted_of_each(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a record says of each adapter of its run: ``adapter_path`` and ``adapter_digests``, the first's first."""
    return [record, *record.get(COMPANIONS, ())]


def with_noted(record: Mapping[str, Any], number: int, noted: Mapping[str, Any]) -> dict[str, Any]:
    """A record that says ``noted`` of the adapter of that number."""
    if number == 0:
        return {**record, **noted}
    others = list(record[COMPANIONS])
    others[number - 1] = {**others[number - 1], **noted}
    return {**record, COMPANIONS: others}


def read_record(folder: Path) -> dict[str, Any]:
    """What ``run.json`` in ``folder`` says, without its checksum.

    Raises:
        FileFormatError: it is missing or damaged.
    """
    path = folder / RECORD
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
    except FileNotFoundError:
        raise FileFormatError(
            f"{folder} is not the folder of a run: it has no run.json. "
            "The folder of a run looks like textual_inversion/DATE/NAME."
        ) from None
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} cannot be read: {error}.") from error
    missing = _RECORDED - record.keys() if isinstance(record, dict) else _RECORDED
    if missing:
        raise FileFormatError(f"{path} does not describe a run: it lacks {', '.join(sorted(missing))}.")
    checksum = record.pop(_CHECKSUM, None)
    # A program that changed it on purpose lays it out in its own way; damage does not.
    if checksum not in (None, _checksum(record)) and text == _laid_out({**record, _CHECKSUM: checksum}):
        raise FileFormatError(
            f"{path} is damaged: its checksum shows that it is not what was written. Put back an earlier copy of it; "
            f"if you changed it yourself, take out its line with {_CHECKSUM!r}."
        )
    return cast(dict[str, Any], record)
