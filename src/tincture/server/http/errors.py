"""Errors as HTTP answers: one shape for all, a status that tells the truth, and no word about the server's inside.

NotFoundError 404 · ConflictError 409 · ForbiddenPathError 403 · QueueFullError 429 · TooMuchError 413 ·
other UsageErrors, DataError, ModelError and FileFormatError 422 · BusyStorageError 503 ·
other StorageErrors 507 · every other error 500
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tincture.errors import BusyError, DataError, FileFormatError, ModelError, StorageError, TinctureError, UsageError
from tincture.server.errors import (
    BusyStorageError,
    ConflictError,
    ForbiddenPathError,
    NotFoundError,
    QueueFullError,
    TooMuchError,
)

# The first that fits counts.
STATUSES: tuple[tuple[type[TinctureError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (ForbiddenPathError, 403),
    (QueueFullError, 429),
    (TooMuchError, 413),
    (BusyError, 409),
    (UsageError, 422),
    (DataError, 422),
    (ModelError, 422),
    (FileFormatError, 422),
    (BusyStorageError, 503),
    (StorageError, 507),
    (TinctureError, 500),
)
MAX_FAULTS = 20
MAX_SENTENCE = 4000

logger = logging.getLogger("tincture.server")


class ErrorAnswer(BaseModel):
    """What every request that fails is answered with."""

    error: str = Field(description="Name of the error's class.")
    detail: str = Field(description="A sentence: what was given, what is allowed, what to do.")
    errors: str = Field(description="The same sentence, where clients of the webui look for it.")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's ``responses`` say of its errors, for OpenAPI."""
    return {status: {"model": ErrorAnswer, "description": DESCRIPTIONS[status]} for status in statuses}


DESCRIPTIONS: Mapping[int, str] = {
    400: "The request cannot be read.",
    401: "User and password, or the token, are missing or wrong.",
    403: "Not allowed: a path outside of the workspace, another site's page, or a name of the server that is not its.",
    404: "There is nothing of that name.",
    405: "The address knows other methods only.",
    408: "The request's body came too slowly.",
    409: "It does not fit the state that a job is in, or a name is taken.",
    413: "More than the server's limits allow.",
    415: "The body is of another type than the address takes.",
    422: "A value is not allowed, or a file cannot be used.",
    429: "Too many requests, or too many wrong passwords.",
    431: "The headers are too large.",
    500: "The server failed; its log says more.",
    503: "The server is not ready.",
    507: "The disk is full, or a folder may not be written.",
}
COMMON = (400, 401, 403, 413, 415, 422, 429, 431, 500)  # what every address may answer


def status_of(error: TinctureError) -> int:
    """The HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def error_response(status: int, error: str, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An answer in the common shape; what cannot be written as UTF-8, such as half a surrogate pair, is replaced."""
    detail = sentence.encode("utf-8", "replace").decode("utf-8")
    detail = detail if len(detail) <= MAX_SENTENCE else detail[: MAX_SENTENCE - 3] + "..."
    content = ErrorAnswer(error=error, detail=detail, errors=detail).model_dump()
    return JSONResponse(content, status, dict(headers) if headers else None)


def answer_of(error: Exception) -> JSONResponse:
    """The answer to any error; an unforeseen one is named by its class only, and logged with its traceback."""
    if isinstance(error, TinctureError):
        return error_response(status_of(error), type(error).__name__, str(error))
    if isinstance(error, HTTPException):
        return error_response(error.status_code, "HTTPException", str(error.detail), error.headers)
    if isinstance(error, RequestValidationError):
        return error_response(422, "UsageError", sentence_of(error.errors()))
    if isinstance(error, UnicodeEncodeError):
        return error_response(422, "UsageError", "A text holds half a surrogate pair; send whole characters.")
    logger.error("A request failed.", exc_info=error)
    return error_response(500, type(error).__name__, "The server failed at this request; its log says more.")


def register(app: FastAPI) -> None:
    """Let the app answer every error in the common shape, and say so in its OpenAPI description."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return answer_of(error)

    for kind in (TinctureError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
    app.router.responses = {**documented(*COMMON), **app.router.responses}
    describe = app.openapi

    def described() -> dict[str, Any]:
        description = describe()
        for operations in description.get("paths", {}).values():
            for operation in operations.values():
                for response in operation.get("responses", {}).values():
                    _say_json(response.get("content", {}))
        return description

    app.openapi = described  # type: ignore[method-assign]


def _say_json(content: dict[str, Any]) -> None:
    """FastAPI takes errors to be of the type that the route answers with; ours are always JSON."""
    for media_type, found in list(content.items()):
        if found.get("schema", {}).get("$ref", "").endswith(f"/{ErrorAnswer.__name__}"):
            content.setdefault("application/json", content.pop(media_type))


class AnswerFaults:
    """Middleware: what nothing below it caught becomes an answer too, unless one has begun already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun:
                raise
            await answer_of(error)(scope, receive, send)


def sentence_of(faults: Sequence[Mapping[str, Any]]) -> str:
    """All that pydantic found wrong, as one sentence per value; values themselves are not repeated."""
    sentences = [_fault(fault) for fault in faults[:MAX_FAULTS]]
    more = f" and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
    return f"The request is not allowed: {'; '.join(sentences)}{more}."


class InCommonShape:
    """Takes what an app sends that is not ours, and gives its errors the common shape; all else passes as it is.

    Args:
        send: gets what passes, and the errors.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._status, self._headers, self._body = 0, dict[str, str](), b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._status = message["status"]
            given = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in message["headers"]}
            self._headers = {name: given[name] for name in ("allow", "retry-after") if name in given}
            return
        if not self._status:
            return await self._send(message)
        if message["type"] == "http.response.body":
            self._body = (self._body + message.get("body", b""))[: 4 * MAX_SENTENCE]
            if not message.get("more_body", False):
                sentence = _found_sentence(self._body) or DESCRIPTIONS.get(self._status, "The request failed.")
                answer = error_response(self._status, "HTTPException", sentence, self._headers)
                await answer(self._scope, self._receive, self._send)


def _found_sentence(body: bytes) -> str:
    """What another program's error says, as a sentence; empty where it says nothing of use."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    detail = (found.get("detail") or found.get("error")) if isinstance(found, dict) else None
    if isinstance(detail, list) and detail and all(isinstance(fault, dict) for fault in detail):
        return sentence_of(detail)
    text = " ".join(detail.split()) if isinstance(detail, str) else ""
    return text if not text or text[-1] in ".!?" else f"{text}."


def _fault(fault: Mapping[str, Any]) -> str:
    if fault.get("type") == "json_invalid":
        return "the body is no JSON"
    where, *inner = [str(part)[:100] for part in fault.get("loc", ())] or ["request"]
    name = ".".join(inner) or where
    place = f" ({where})" if inner and where != "body" else ""
    message = str(fault.get("msg", "is wrong"))
    return f"{name}{place}: {message[:1].lower()}{message[1:]}"
