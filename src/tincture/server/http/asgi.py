"""What the middlewares share: reading a request's headers, and refusing it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.types import Receive, Scope, Send

from tincture.server.http.errors import error_response

UNSAFE_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
API_PATHS = ("/api/", "/sdapi/", "/internal/")
HEAD_BYTES = 16 * 2**10
"""Of a request's first line and headers, at most."""
ALLOWED = "tincture.allowed"
"""Key of the scope: whether the answer to this request may say everything."""


def headers_of(scope: Scope, name: bytes) -> list[str]:
    """Every value of a header, in order; ``name`` is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def header_of(scope: Scope, name: bytes) -> str:
    """The first value of a header; empty where it is missing."""
    return next(iter(headers_of(scope, name)), "")


def media_type(scope: Scope) -> str:
    """The body's type without parameters, in lower case; empty where it is not given."""
    return header_of(scope, b"content-type").partition(";")[0].strip().lower()


def has_body(scope: Scope) -> bool:
    """Whether the request says that a body comes."""
    return header_of(scope, b"content-length") not in ("", "0") or bool(header_of(scope, b"transfer-encoding"))


def address_of(scope: Scope) -> str:
    """Whom limits count against: the peer's address; of IPv6 its network of 64 bits, which one machine may have."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ip_address(host)
    except ValueError:
        return host[:100]
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((int(address) >> 64 << 64, 64)))


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    status: int,
    error: str,
    sentence: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer in the common shape of errors instead of handing the request on."""
    await error_response(status, error, sentence, headers)(scope, receive, send)
