"""Where a captioner or tagger lies: on this machine, or on the Hugging Face hub, from where it is copied once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tincture.errors import ModelError, foreign

_LOGIN = "`hf auth login`"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_model(model: str, patterns: Sequence[str], what: str) -> Path:
    """The file or folder that ``model`` means: a path, or else a model of the hub as OWNER/NAME.

    What comes from the hub is kept in its cache (HF_HOME) and needs no network the next time. A path that exists never
    asks the hub.

    Args:
        model: as the user gave it.
        patterns: names of the files that are wanted from the hub; ``*`` stands for any characters.
        what: what such a path may be, for errors: "a folder with model.onnx".

    Raises:
        ModelError: there is nothing under this name, or it cannot be fetched.
    """
    path = Path(model).expanduser()
    if model and os.path.exists(path):
        return path.resolve()
    if not is_of_hub(model):
        raise ModelError(f"There is no {model!r} here; give {what}, or a model of the hub as OWNER/NAME.")
    return _fetch(model, patterns, what)


def is_of_hub(model: str) -> bool:
    """Whether ``model`` is nothing on this machine and may be one of the hub, which is not asked."""
    path = Path(model).expanduser()
    # "models/blip" has the form of a hub id too; where the first part is a folder, the second was mistyped.
    return _HUB_ID.fullmatch(model) is not None and not os.path.exists(path) and not os.path.isdir(path.parent)


def _fetch(model: str, patterns: Sequence[str], what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        reason = f"its owner must let you in first; ask for access on its page, then log in by {_LOGIN}"
        raise ModelError(f"{model} cannot be fetched from the hub: {reason}.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"There is neither a file or folder {model!r} here nor such a model on the hub (a private one needs "
            f"{_LOGIN}); give {what}, or a model of the hub as OWNER/NAME."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"There is no file or folder {model!r} here, and as a model of the hub it is not in the cache, and the hub "
            f"cannot be reached; give {what}, or try again with a network."
        ) from error
    except Exception as error:  # the hub's client raises errors of many families, and all mean: not fetched
        reason = foreign((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ModelError(f"{model} cannot be fetched from the hub: {reason}.") from error
