"""How a process connects to a Ray cluster, without Ray's own messages, and what goes wrong then, in sentences.

Imports Ray only within calls, so that its sentences can be made where it is not loaded.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from pathlib import Path
from urllib.parse import urlsplit

from tincture.errors import UsageError, foreign

AUTO = "auto"
AUTH_MODE = "RAY_AUTH_MODE"
NAMESPACE = "tincture"
REACH_S = 5.0
"""Seconds that a port has to answer."""
OBJECT_STORE = 100 * 2**20
"""Bytes that a cluster of our own has for objects: none are sent."""
INSTALL = "The queue on a cluster needs ray, which is not installed: pip install 'tincture[cluster]'."
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(OBJECT_STORE),
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # who asks for no GPU sees none
}


def connect(address: str) -> dict[str, str]:
    """Connects this process; where ``address`` is ``auto``, to the cluster of this machine, or to one begun for it.

    Returns:
        ``address``, where others connect to the same cluster, and ``auth_mode``, with which they do so: a value of the
        variable RAY_AUTH_MODE.

    Raises:
        UsageError: it cannot be; see ``explained``.
    """
    # Ray itself shows a token to clusters of others only where it is asked to.
    mode = {AUTH_MODE: "token"} if address != AUTO and token_noted() else {}
    os.environ.update({name: os.environ.get(name, value) for name, value in {**_SETTINGS, **mode}.items()})
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError(INSTALL) from None
    own = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False, "namespace": NAMESPACE}
    try:
        ray.init(**({} if address == AUTO else {"address": address}), **own)
    except Exception as error:
        raise UsageError(explained(address, str(error))) from None
    if address == AUTO:
        address = ray.get_runtime_context().gcs_address
    return {"address": address, "auth_mode": os.environ.get(AUTH_MODE, "")}


def require_answer(address: str) -> None:
    """UsageError unless something listens at ``HOST:PORT`` or ``ray://HOST:PORT``; takes a few seconds at most."""
    if address == AUTO:
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 10001), timeout=REACH_S).close()
    except OSError as error:
        raise UsageError(
            f"The Ray cluster {address!r} cannot be reached ({error.strerror or error}); check the address and that "
            "the cluster runs, or give --ray auto for one on this machine."
        ) from None


def explained(address: str, reason: str) -> str:
    """A sentence for what Ray says when it does not connect."""
    what, text = f"The Ray cluster {address!r}", " ".join(reason.split())
    if "uthentica" in text or "InvalidAuthToken" in text or "AuthToken" in text:
        return (
            f"{what} does not take this machine's token; put the cluster's own into ~/.ray/auth_token, or name its "
            "file by the variable RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token."
        )
    if "ersion mismatch" in text or "same version" in text:
        return (
            f"{what} has another version of Ray or Python ({foreign(text)}); all its machines and this one "
            "need the same."
        )
    if "raylet" in text or ("node" in text.lower() and "ray start" in text):
        return (
            f"{what} does not have this machine among its nodes; run ray start with that address here, or give --ray "
            "ray://HOST:10001."
        )
    if "Traceback" in text:
        text = text.rpartition("Error: ")[2]  # of its own process for this one
    return f"{what} did not take the connection: {foreign(text, 400) if text else 'it says nothing'}."


def token_noted() -> bool:
    """Whether this user has a token for clusters."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    place = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or place.is_file()
