"""Errors as problem+json (RFC 9457): the sentence, what to do, and the exit code that a command line ends with."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from orchestrator import codec
from orchestrator.errors import BeamwayError, Conflict, Denied, InputError, NotFound, Unavailable, UserError, printable

STATUS: dict[type[BeamwayError], int] = {
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    InputError: 422,
    UserError: 400,
    Unavailable: 503,
}
MEDIA = "application/problem+json"


class Json(JSONResponse):
    """As the codec writes it: a file name that is not UTF-8 comes through, and a number that is none is null."""

    def render(self, content: Any) -> bytes:
        return codec.dumps(content).encode()


def problem(status: int, title: str, detail: str, *, hint: str = "", exit_code: int = 70) -> Response:
    headers = {"www-authenticate": "Bearer"} if status == 401 else {"retry-after": "2"} if status == 503 else {}
    body = {"title": title, "status": status, "detail": detail, "hint": hint, "exit_code": exit_code}
    return Json(body, status, headers, MEDIA)


def install(app: FastAPI) -> None:
    @app.exception_handler(BeamwayError)
    async def ours(request: Request, error: BeamwayError) -> Response:
        status = next((number for kind, number in STATUS.items() if isinstance(error, kind)), 500)
        if status == 403 and "authorization" not in request.headers:
            status = 401
        return problem(status, type(error).__name__, error.sentence, hint=error.hint, exit_code=error.exit_code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(400, "UserError", printable(f"{where}: {first['msg']}."), exit_code=UserError.exit_code)

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        code = NotFound.exit_code if error.status_code == 404 else 70
        return problem(error.status_code, "NotFound" if code == 4 else "Error", str(error.detail), exit_code=code)
