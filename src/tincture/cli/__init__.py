"""The command line. Its modules import only the standard library and Typer; a command imports what it needs."""

from __future__ import annotations

from tincture.cli.app import main

__all__ = ["main"]
