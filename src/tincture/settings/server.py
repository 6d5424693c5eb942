"""The settings of the server: every default, help text and check in one place."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from tincture.settings.checks import Bounds, at_least, cpu_threads, device_name, filled
from tincture.settings.fields import CheckedSettings, FieldSpec, setting, specs_of

ADDRESS, ACCESS, WORK, LIMITS = ("Address", "Access", "Work", "Limits")


_PORT = Bounds("from 1 to 65535, or 0 for any that is free", 0, 65535)


def _credentials(value: str) -> str | None:
    user, colon, password = value.partition(":")
    return None if not value or (user and colon and password) else "USER:PASSWORD"


def _long_enough(value: str) -> str | None:
    return None if not value or len(value) >= 16 else "at least 16 characters long"


def _addresses(value: tuple[str, ...]) -> str | None:
    try:
        for text in value:
            ip_network(text)
    except ValueError:
        return "addresses in numbers, such as 127.0.0.1 or 172.17.0.0/16"
    return None


OWN_PATHS = ("api", "sdapi", "internal", "docs", "gradio_api", "static", "assets", "config", "health", "metrics")
"""First parts of the server's own addresses."""
ROOT_PATH = re.compile(rf"(?!/(?:{'|'.join(OWN_PATHS)})(?:/|$))(?:/(?!\.)[A-Za-z0-9._~-]{{1,100}}){{1,10}}/?")


def _root_path(value: str) -> str | None:
    if value in ("", "/") or ROOT_PATH.fullmatch(value):
        return None
    return f"a path such as /tincture, of letters, digits and .-_~, that does not begin with /{', /'.join(OWN_PATHS)}"


def _cluster(value: str) -> str | None:
    if value in ("", "auto"):
        return None
    try:
        parts = urlsplit(value if "//" in value else f"gcs://{value}")
        sound = parts.scheme in ("gcs", "ray") and parts.hostname and (parts.port or parts.scheme == "ray")
    except ValueError:
        sound = None
    clean = sound and not (parts.path or parts.query or parts.fragment or parts.username)
    return None if clean else "auto, HOST:PORT, such as head.lan:6379, or ray://HOST:PORT, such as ray://head.lan:10001"


def _devices(value: tuple[str, ...]) -> str | None:
    faults = [fault for device in value if (fault := device_name(device))]
    if faults:
        return f"each {faults[0]}"
    return None if len(set(value)) == len(value) and value else "devices that differ, at least one"


@dataclass(frozen=True, kw_only=True)
class ServerSettings(CheckedSettings):
    """All settings of `tincture serve`; immutable, checked when made.

    Raises:
        UsageError: naming every value that is not allowed, all in one message.
    """

    host: str = setting("127.0.0.1", ADDRESS, "Address to listen on; others than this machine's need access.", filled)
    port: int = setting(7860, ADDRESS, "Port to listen on; 0: any that is free.", _PORT)
    allow_host: tuple[str, ...] = setting(
        (), ADDRESS, "Further name under which the server is reached, such as trainer.lan; repeat for several."
    )
    proxy: tuple[str, ...] = setting(
        (), ADDRESS, "Address of a reverse proxy, whose word on who asks counts; repeat for several.", _addresses
    )
    root_path: str = setting(
        "",
        ADDRESS,
        "Path below which a reverse proxy has the server, such as /tincture, whether it takes it off or not.",
        _root_path,
        strip=True,
    )

    auth: str = setting(
        "",
        ACCESS,
        "USER:PASSWORD that every request must give; better by the variable TINCTURE_AUTH.",
        _credentials,
        secret=True,
    )
    token: str = setting(
        "",
        ACCESS,
        "Token that programs may give instead; better by the variable TINCTURE_TOKEN.",
        _long_enough,
        secret=True,
    )
    allow_dir: tuple[str, ...] = setting(
        (), ACCESS, "Folder outside the workspace that requests may read and write; repeat for several.", path=True
    )
    allow_hub: bool = setting(False, ACCESS, "Requests may name models on the hub, which are then downloaded.")

    device: tuple[str, ...] = setting(
        ("auto",), WORK, "Device that jobs run on, one at a time; repeat for several devices.", _devices
    )
    ray: str = setting(
        "",
        WORK,
        "Jobs run on a Ray cluster: auto (this machine's, or one that is begun for the server), HOST:PORT, or "
        "ray://HOST:PORT; empty: on this machine's devices.",
        _cluster,
        strip=True,
    )
    threads: int = setting(
        0,
        WORK,
        "CPU threads that jobs and drawings share; 0: as many as there are cores to use, or OMP_NUM_THREADS for each.",
        cpu_threads,
    )
    state_dir: str = setting("", WORK, "Folder for queue, logs and drawn pictures; empty: tincture-server.", path=True)
    database: str = setting(
        "",
        WORK,
        "File of the queue, on a disk of this machine where the state dir is on a shared one; empty: jobs.sqlite3 in "
        "the state dir.",
        path=True,
    )
    job_timeout: float = setting(0.0, WORK, "Hours after which a job is stopped and saved; 0: none.", at_least(0))
    idle_minutes: float = setting(
        10.0, WORK, "Minutes after which the model that draws pictures leaves the memory.", at_least(0)
    )
    webui_errors: bool = setting(
        False, WORK, "Answer failed work below /sdapi/v1 with 200 and the error in info, as the webui does."
    )

    max_upload_mb: int = setting(2048, LIMITS, "Megabytes that an upload may have, also unpacked.", at_least(1))
    max_upload_files: int = setting(10000, LIMITS, "Files that an upload may have.", at_least(1))
    max_body_kb: int = setting(1024, LIMITS, "Kilobytes that any other request may have.", at_least(1))
    max_jobs: int = setting(1000, LIMITS, "Jobs that may wait at a time.", at_least(1))
    max_pictures: int = setting(64, LIMITS, "Pictures that a request may draw.", at_least(1))
    max_side: int = setting(2048, LIMITS, "Pixels that a drawn picture's side may have.", at_least(8))
    requests_per_minute: int = setting(3000, LIMITS, "Requests that one address may make a minute.", at_least(1))

    @classmethod
    def faults_between(cls, values: Mapping[str, Any], faulty: Collection[str]) -> list[str]:
        host = values.get("host", "127.0.0.1")
        if "host" in faulty or is_loopback(host) or values.get("auth") or values.get("token"):
            return []
        return [
            f"host is {host!r}, which other machines can reach, but neither auth nor token is set; give --auth "
            "USER:PASSWORD or --token, or leave --host out"
        ]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


SERVER_FIELDS: Mapping[str, FieldSpec] = specs_of(ServerSettings)
