"""Where a tagger lies, and whether it is of the WD14 family or DeepDanbooru; nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from tincture.errors import ModelError, UsageError
from tincture.preprocessing.model_files import find_model

MODEL_FILE = "model.onnx"
LABELS_FILE = "selected_tags.csv"
_WHAT = f"a folder with {MODEL_FILE} and {LABELS_FILE}, or DeepDanbooru's .pt file"


def find_tagger(model: str, *, character_threshold: float | None = None) -> tuple[Path, Path | None]:
    """The file of the network, and its table of tags, which DeepDanbooru has none of.

    Args:
        model: as ``tagging.load_tagger`` takes it; one of the hub is fetched.
        character_threshold: likewise.

    Raises:
        UsageError: DeepDanbooru has no such threshold.
        ModelError: there is no such model, or it is of another kind.
    """
    place = find_model(model, [MODEL_FILE, LABELS_FILE], _WHAT)
    deepdanbooru = _deepdanbooru_file(place)
    if deepdanbooru is None:
        return _wd_files(place)
    if character_threshold is not None:
        raise UsageError(
            f"{deepdanbooru} does not tell names of characters from other tags, so it takes no threshold for them; "
            "leave that out."
        )
    return deepdanbooru, None


def _deepdanbooru_file(place: Path) -> Path | None:
    """The .pt file that ``place`` is, or the only one in the folder ``place`` where no ONNX model is."""
    if place.suffix == ".pt" and place.is_file():
        return place
    files = [] if not place.is_dir() or (place / MODEL_FILE).exists() else sorted(place.glob("*.pt"))
    return files[0] if len(files) == 1 else None


def _wd_files(place: Path) -> tuple[Path, Path]:
    model = place / MODEL_FILE if place.is_dir() else place
    beside = model.with_suffix(".csv")
    labels = beside if beside.is_file() else model.with_name(LABELS_FILE)
    if model.suffix == ".onnx" and model.is_file() and labels.is_file():
        return model, labels
    if (place / "project.json").is_file():
        raise ModelError(
            f"{place} is a project of the original DeepDanbooru, which runs by TensorFlow and is not supported; give "
            f"{_WHAT} that the webui uses."
        )
    missing = MODEL_FILE if not model.is_file() or model.suffix != ".onnx" else f"{LABELS_FILE} beside it"
    raise ModelError(f"{place} is no tagger: it has no {missing}; give {_WHAT}.")
