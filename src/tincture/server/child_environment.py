"""What the server's child processes find in their environment: all that it has itself, without its secrets."""

from __future__ import annotations

from tincture.processes.launch import environment_of_one

SECRETS = ("TINCTURE_AUTH", "TINCTURE_TOKEN", "RAY_AUTH_TOKEN")


def child_environment(*, allow_hub: bool) -> dict[str, str]:
    """For ``subprocess``: extensions and libraries that run in a child need no password of the server.

    Unless ``allow_hub``, the libraries find that there is no Hugging Face hub, whatever a file or name says.
    """
    # A server is one process, whatever a launcher or a batch script says of it; so are those that it starts.
    inherited = {name: value for name, value in environment_of_one().items() if name not in SECRETS}
    return inherited if allow_hub else {**inherited, "HF_HUB_OFFLINE": "1"}
