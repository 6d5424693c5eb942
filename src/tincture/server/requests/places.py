"""Which files and folders a request may name: those in the workspace, and in folders that were allowed at the start.

Links are resolved at every request, and what a path really means must lie inside. That holds for paths that do not
exist yet too: what is there of them is resolved, and the rest is taken as it is written. A name in the workspace (of a
model, VAE or template) may stand for a link that leads out: who can make links there may read the files anyway.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tincture.data.captions import SHIPPED, template_names
from tincture.data.listing import MAX_REPEATS, Source
from tincture.errors import UsageError, shortened
from tincture.extensions import FOLDER
from tincture.preprocessing.crop_places import check_places
from tincture.run.presence import with_describer
from tincture.server.errors import ForbiddenPathError
from tincture.server.requests.drawing import checked_drawing
from tincture.server.requests.sizes import check_size, check_sizes
from tincture.settings.drawing import REQUEST_FIELDS, DrawingRequest
from tincture.settings.fields import FieldSpec, as_meant
from tincture.settings.paths import pasted_path
from tincture.settings.preprocess import PREPROCESS_FIELDS, PreprocessSettings
from tincture.settings.train import FIELDS, TrainSettings
from tincture.workspace import Workspace

LONGEST_PATH = 4000
LONGEST_PART = 255
MOST_NAMED = 10
"""Templates that a message names."""
SYSTEM_FOLDERS = tuple(Path(folder) for folder in ("/proc", "/sys", "/dev"))
"""Nobody keeps pictures there, and reading some of it does harm: refused even where the whole disk is allowed."""
MOST_LINKS = 40
"""In a row; Linux follows no more either."""
ToCome = Callable[[], Iterable[Path]]
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{10}|[0-9a-f]{64}")
_TITLE = re.compile(r"(?P<name>[^\[]+?)\s*\[[0-9a-f]{8,64}\]")
_REPEATED = re.compile(r"(?P<folder>.+):(?P<repeats>\d+)", re.DOTALL)


class Places:
    """Turns what requests call files, folders and models into what may be read and written.

    Args:
        workspace: relative paths start at its root.
        state_dir: the server's own folder, which requests may read and not write to.
        allow_dirs: folders outside of the workspace that requests may name too.
        allow_hub: whether requests may name models on the hub.

    Attributes:
        roots: the folders that paths may lie in, links resolved.

    Raises:
        UsageError: an allowed folder is none.
    """

    def __init__(
        self, workspace: Workspace, state_dir: Path, allow_dirs: Sequence[str] = (), *, allow_hub: bool = False
    ) -> None:
        self.workspace, self.allow_hub = workspace, allow_hub
        self._root, self._state = _real(workspace.root), _real(state_dir)
        self.roots = tuple(dict.fromkeys([self._root, self._state, *map(allowed_folder, allow_dirs)]))

    # --- paths -------------------------------------------------------------------------------------------------------

    def path(self, text: str | Path, *, writing: bool = False) -> Path:
        """What ``text`` really means: absolute, links resolved. It need not exist.

        Args:
            text: relative ones start at the workspace.
            writing: something will be made or changed there, so that it must not be the server's own.

        Raises:
            ForbiddenPathError: it leads out of ``roots``.
            UsageError: it is no path, too long, or means something other than a file or folder.
        """
        text = self._meant(os.fspath(text))
        _refuse_odd(text)
        if _leads_through_systems(self._root / text):
            raise ForbiddenPathError(
                f"The path {shortened(text)} leads through a folder of the system itself, such as /proc; name the file "
                "or folder directly."
            )
        real = _real(self._root / text)
        if not any(real.is_relative_to(root) for root in self.roots) or _is_systems(real):
            raise ForbiddenPathError(
                f"The path {shortened(text)} leads out of the workspace and of the folders that were allowed; name one "
                "inside, or let the server be started by tincture serve --allow-dir FOLDER."
            )
        _refuse_loops(real, text)
        _refuse_special(real, text)
        if writing and real.is_relative_to(self._root / FOLDER):
            raise ForbiddenPathError(
                f"The path {shortened(text)} leads into the folder of extensions, whose code the server runs; choose "
                "another."
            )
        if writing and real.is_relative_to(self._state):
            raise ForbiddenPathError(
                f"The path {shortened(text)} is the server's own, which requests must not change; choose another."
            )
        return real

    def shown(self, path: Path) -> str:
        """``path`` as requests may give it: from the workspace on where it lies there, with / between its parts."""
        for root in (self.workspace.root, self._root):
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix()
        return str(path)

    def _meant(self, text: str) -> str:
        """A path as it was pasted, see ``pasted_path``: what really is called so in the workspace is found first."""
        return pasted_path(text, lambda name: os.path.lexists(self._root / name)) if isinstance(text, str) else text

    def _pasted(self, values: Mapping[str, Any], fields: Mapping[str, FieldSpec]) -> dict[str, Any]:
        """The same of every path among the values of settings, which know no workspace."""

        def meant(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [meant(item) for item in value]
            text = self._meant(value)
            is_odd = isinstance(text, str) and pasted_path(text, lambda name: False) != text
            return str(self._root / text) if is_odd and os.path.lexists(self._root / text) else text

        paths = {name for name, spec in fields.items() if spec.path}
        return {name: meant(value) if name in paths else value for name, value in values.items()}

    def _present(self, text: str, path: Path, to_come: ToCome) -> Path:
        """``path``, which ``text`` stands for, if it is a folder or one that a job is going to make."""
        if path.is_dir() or (not path.exists() and any(path.is_relative_to(folder) for folder in to_come())):
            return path
        what = "is a file" if path.exists() else "is not there"
        raise UsageError(
            f"The folder {shortened(text)} {what}; name a folder by its path from the workspace on, or a data set by "
            "its name."
        )

    def folder(self, text: str, *, writing: bool = False) -> Path:
        """The same as ``path`` for a folder of pictures, which may be the name of a data set."""
        text = self._meant(text)
        if isinstance(text, str) and text and not any(mark in text for mark in "/\\"):
            dataset = self.workspace.datasets / text
            if not os.path.lexists(self._root / text) and os.path.isdir(dataset):
                return self.path(dataset, writing=writing)
        return self.path(text, writing=writing)

    # --- models and templates ----------------------------------------------------------------------------------------

    def model(self, name: str) -> str:
        """What ``recipe`` takes for the base model ``name``.

        ``picto``, a name or hash in the workspace, or a path; an id of the hub only where that is allowed.

        Raises:
            UsageError: there is no such model.
            ForbiddenPathError: it is a path that leads out.
        """
        name = self._meant(name)
        _refuse_odd(name)
        if name == "picto" or _HASH.fullmatch(name):
            return name
        title = _TITLE.fullmatch(name)
        try:
            found = self._named(name, title["name"] if title else name, self.workspace.find_model)
        except UsageError as error:
            found, hint = "", str(error)
        return found or self._elsewhere(name, hint)

    def _elsewhere(self, name: str, hint: str) -> str:
        path = self.path(name)
        if path.exists():
            return str(path)
        if _HUB_ID.fullmatch(name) and not path.parent.exists():
            return self._of_hub(name, hint)
        raise UsageError(hint)

    def _of_hub(self, name: str, hint: str) -> str:
        if self.allow_hub:
            return name
        raise UsageError(
            f"{hint} Models on the hub can be named only where the server was started by tincture serve --allow-hub."
        )

    def vae(self, name: str) -> str:
        """What ``recipe`` takes for the VAE ``name``: a name in the workspace, or a path; empty stays empty."""
        name = self._meant(name)
        if not name:
            return ""
        _refuse_odd(name)
        try:
            return self._named(name, name, self.workspace.find_vae)
        except UsageError as error:
            path = self.path(name)
            if path.exists():
                return str(path)
            raise UsageError(str(error)) from None

    def _named(self, given: str, name: str, find: Any) -> str:
        """A name of the workspace as it was given, or its path where the name could mean another file too."""
        path: Path = find(name)
        unclear = os.path.lexists(self._root / given) or given.startswith("~") or os.path.isabs(given)
        return str(path.absolute()) if unclear else given

    def helper_model(self, name: str) -> str:
        """What ``preprocess`` takes for a captioner or tagger: a path; an id of the hub only where that is allowed."""
        if not name:
            return ""
        path = self.path(name)
        if path.exists():
            return str(path)
        hint = f"There is no file or folder {shortened(name)} in the workspace."
        if _HUB_ID.fullmatch(name) and not path.parent.exists():
            return self._of_hub(name, hint)
        raise UsageError(hint)

    def template(self, name: str) -> str:
        """What ``recipe`` takes for a prompt template: its name, or a path; empty stays empty.

        Raises:
            UsageError: there is no such template.
            ForbiddenPathError: it is a path that leads out.
        """
        name = self._meant(name)
        if not name:
            return ""
        _refuse_odd(name)
        file_name = f"{name.removesuffix('.txt')}.txt"
        known = any(os.path.isfile(folder / file_name) for folder in (self.workspace.templates, SHIPPED))
        if known and not any(mark in name for mark in "/\\") and not os.path.lexists(self._root / name):
            return name
        path = self.path(name)
        if not any(os.path.isfile(file) for file in (path, f"{path}.txt")):
            names = ", ".join(template_names(self.workspace.templates)[:MOST_NAMED])
            raise UsageError(
                f"There is no template {shortened(name)}; give the path of a text file, or one of {names}."
            )
        return str(path)

    # --- settings ----------------------------------------------------------------------------------------------------

    def train_settings(self, values: Mapping[str, Any], to_come: ToCome = tuple) -> TrainSettings:
        """Settings of a training, checked, with every path in them resolved; a model that is not named stays open.

        Args:
            values: fields of ``TrainSettings``.
            to_come: gives folders that need not be there yet, nor what lies in them, since jobs that wait make them.

        Raises:
            UsageError: naming every value that is not allowed, or a folder or template that is not there.
            ForbiddenPathError: a path leads out.
        """
        values = as_meant(FIELDS, values)
        check_sizes(values, FIELDS)
        settings = TrainSettings.from_dict(self._pasted(values, FIELDS))

        def data(folders: Iterable[str]) -> tuple[str, ...]:
            return tuple(self._data(folder, to_come, writing=settings.write_captions) for folder in folders)

        return settings.replace(
            model=settings.model and self.model(settings.model),
            vae=self.vae(settings.vae),
            data=data(settings.folders),
            validation_data=data(settings.validation_folders),
            prior_data=data(settings.given_prior_folders) or self._drawn(settings),
            caption_model=self._describer(settings),
            template=self.template(settings.template),
            companions=tuple(str(replace(other, template=self.template(other.template))) for other in settings.others),
            prior_template=self.template(settings.prior_template),
            masks=str(self._present(settings.masks, self.path(settings.masks), to_come)) if settings.masks else "",
            cache_dir=self._optional(settings.cache_dir, writing=True),
            log_dir=self._optional(settings.log_dir, writing=True),
        )

    def _describer(self, settings: TrainSettings) -> str:
        """What describes pictures without a caption; one that is found by itself is taken from allowed places only."""
        given = settings.replace(caption_model=self.helper_model(settings.caption_model))
        named, _ = with_describer(given, self.workspace)
        return self.helper_model(named.caption_model)

    def preprocess_settings(self, values: Mapping[str, Any], to_come: ToCome = tuple) -> PreprocessSettings:
        """Settings of a preprocessing, checked, with every path in them resolved; the rest as of ``train_settings``."""
        check_sizes(values, PREPROCESS_FIELDS)
        settings = PreprocessSettings.from_dict(self._pasted(values, PREPROCESS_FIELDS))
        destination = self.path(settings.destination, writing=True)
        source = self._present(settings.source, self.folder(settings.source), to_come)
        named = shortened(settings.source), shortened(settings.destination)
        check_places(source, destination, recursive=settings.recursive, named=named)
        return settings.replace(
            source=str(source),
            destination=str(destination),
            yunet_model=self._optional(settings.yunet_model),
            captioner=self.helper_model(settings.captioner),
            tagger=self.helper_model(settings.tagger),
        )

    def drawing(self, request: Mapping[str, Any], *, most: int, side: int) -> DrawingRequest:
        """A request for pictures, checked, with every path in it resolved; see ``checked_drawing``.

        Args:
            request: see ``Service.draw``.
            most: pictures that it may ask for.
            side: pixels that a side may have.

        Raises:
            UsageError: a value is not allowed.
            ForbiddenPathError: a path leads out.
            TooMuchError: more or larger pictures than allowed.
        """
        checked = checked_drawing(self._pasted(request, REQUEST_FIELDS), most=most, side=side)
        return checked.replace(
            model=checked.model and self.model(checked.model),
            vae=self.vae(checked.vae),
            checkpoints=tuple(str(self.path(path)) for path in checked.checkpoints),
        )

    def _optional(self, text: str, *, writing: bool = False) -> str:
        return str(self.path(text, writing=writing)) if text else ""

    def _drawn(self, settings: TrainSettings) -> tuple[str, ...]:
        """Where a model draws pictures for prior preservation, which need not be there yet."""
        return tuple(str(self.folder(folder, writing=True)) for folder in settings.prior_folders)

    def _data(self, text: str, to_come: ToCome, *, writing: bool = False) -> str:
        """FOLDER or FOLDER:3; as in ``Source.parse``, a folder that is really called so is taken by its name."""
        repeated = _REPEATED.fullmatch(text)
        if repeated is None or self.folder(text).is_dir():
            return str(self._present(text, self.folder(text, writing=writing), to_come))
        repeats = int(repeated["repeats"]) if len(repeated["repeats"]) < 9 else MAX_REPEATS + 1
        if not 1 <= repeats <= MAX_REPEATS:
            raise UsageError(f"The data {shortened(text)} asks for repeats that are not 1 to {MAX_REPEATS}.")
        place = self.folder(repeated["folder"], writing=writing)
        folder = self._present(repeated["folder"], place, to_come)
        return str(Source(folder, repeats))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def allowed_folder(text: str) -> Path:
    """What an allowed folder really is; UsageError where it is none."""
    path = _real(Path(text).expanduser())
    if not path.is_dir():
        raise UsageError(f"The allowed folder {text!r} is not a folder; create it, or leave it out.")
    return path


def _refuse_odd(text: object) -> None:
    check_size("A path or name", text, LONGEST_PATH)
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"The path {shortened(text)} is not a text with something in it.")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UsageError(f"The path {shortened(text)} has characters that no path has, such as a zero byte.")
    if any(0xD800 <= ord(character) < 0xE000 for character in text):
        raise UsageError(f"The path {shortened(text)} is not valid Unicode text.")
    if text.startswith("~"):
        raise ForbiddenPathError(f"The path {shortened(text)} begins with ~, which stands for no folder here.")
    if re.match(r"[/\\]{2}", text):
        raise ForbiddenPathError(f"The path {shortened(text)} is one of another machine; name a folder of this one.")
    if len(text.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_PART for part in _parts(text)):
        raise UsageError(
            f"The path {shortened(text)} is too long; allowed are {LONGEST_PATH} bytes, and {LONGEST_PART} for a name."
        )


def _parts(text: str) -> Iterable[str]:
    return re.split(r"[/\\]" if os.name == "nt" else "/", text)


def _is_systems(real: Path) -> bool:
    return any(real.is_relative_to(folder) for folder in SYSTEM_FOLDERS)


def _leads_through_systems(path: Path) -> bool:
    """Whether a folder of the system stands on the way, links followed: links in /proc lead to what others have open.

    Nothing behind it is looked at, which alone may fail.
    """
    place, left, links = Path(os.sep if path.anchor.strip("/") == "" else path.anchor), [*path.parts[:0:-1]], 0
    while left and links <= MOST_LINKS:
        part = left.pop()
        place = place.parent if part == os.pardir else place / part
        if _is_systems(place):
            return True
        try:
            target = Path(os.readlink(place))
        except OSError:
            continue  # no link, or nothing there
        links += 1
        place = Path(os.sep) if target.is_absolute() else place.parent
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return False


def _refuse_loops(real: Path, text: str) -> None:
    """Links that cannot be resolved, since they lead in a circle, stay in what ``os.path.realpath`` gives."""
    if any(os.path.islink(place) for place in (real, *real.parents)):
        raise ForbiddenPathError(f"The path {shortened(text)} has a link in it that leads in a circle.")


def _refuse_special(real: Path, text: str) -> None:
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"The path {shortened(text)} cannot be used: {reason.lower()}.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ForbiddenPathError(f"The path {shortened(text)} is neither a file nor a folder, but a device or pipe.")
