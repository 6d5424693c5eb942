"""The gate: every request passes these checks, in this order, before anything else sees it.

    SecureHeaders   every answer, refusals too, gets its headers
    AnswerFaults    an error that nobody caught becomes an answer
    CheckHead       are its headers small enough?
    CheckHost       is it for a name of ours? (DNS rebinding)
    CheckRate       has its address asked for too much?
    CheckSite       does the page of another site ask? (cross-site request forgery)
    CheckAccess     are user and password, or the token, right?
    CheckBody       is its body small enough, in time, of the right type?

All are plain ASGI: answers and bodies stream through them.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from tincture.server.http.errors import AnswerFaults
from tincture.server.security.auth import CheckAccess, Credentials
from tincture.server.security.headers import SecureHeaders
from tincture.server.security.hosts import CheckHost, CheckSite, Names
from tincture.server.security.limits import CheckBody, CheckHead, CheckRate
from tincture.settings.server import ServerSettings


def protect(app: FastAPI, settings: ServerSettings, received: Callable[[int], None] = lambda count: None) -> None:
    """Put the gate before an app; ``received`` is called with the bytes of uploads as they come."""
    # what is added last is asked first
    most, most_upload = settings.max_body_kb * 2**10, settings.max_upload_mb * 2**20
    app.add_middleware(CheckBody, most=most, most_upload=most_upload, received=received)
    app.add_middleware(CheckAccess, credentials=Credentials(settings.auth, settings.token))
    app.add_middleware(CheckSite)
    app.add_middleware(CheckRate, per_minute=settings.requests_per_minute)
    app.add_middleware(CheckHost, names=Names(settings.host, settings.allow_host))
    app.add_middleware(CheckHead)
    app.add_middleware(AnswerFaults)
    app.add_middleware(SecureHeaders)
