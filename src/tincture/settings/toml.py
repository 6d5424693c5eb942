"""TOML files of settings, read and written."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from tincture.errors import UsageError
from tincture.settings.paths import pasted_path


def read_toml(path: str | Path) -> dict[str, Any]:
    """The top-level table of a TOML file; UsageError when there is none."""
    path = pasted_path(str(path))
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The run file {str(path)!r} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"The run file {str(path)!r} is not UTF-8 text; save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The run file {str(path)!r} is not valid TOML: {error}.") from None


def toml_value(value: Any) -> str:
    """A text, number, truth value or list as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # a JSON string is a TOML basic string, except that JSON leaves DEL as it is
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
