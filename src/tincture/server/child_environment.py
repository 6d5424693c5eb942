"""What the server's child processes find in their environment: all that it has itself, without its secrets."""

from __future__ import annotations

import os

SECRETS = ("TINCTURE_AUTH", "TINCTURE_TOKEN")


def child_environment() -> dict[str, str]:
    """For ``subprocess``: extensions and libraries that run in a child need no password of the server."""
    return {name: value for name, value in os.environ.items() if name not in SECRETS}
