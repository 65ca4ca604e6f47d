"""The gateway between a browser and the gRPC service.

It serves a few fixed files and passes images on. It keeps nothing, writes nothing to disk, and makes no path
from anything that a request says.
"""

from __future__ import annotations

import email.message
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longhand_client import (
    AsyncRecognizerClient,
    AuthenticationError,
    DeadlineExceededError,
    InvalidRequestError,
    LonghandError,
    Model,
    ModelNotFoundError,
    OverloadedError,
    RecognitionOptions,
    ServerUnavailableError,
    Tls,
    UnsupportedError,
)
from longhand_client.options import with_language_weight

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/api.js": ("api.js", "text/javascript; charset=utf-8"),
    "/pad.js": ("pad.js", "text/javascript; charset=utf-8"),
    "/reading.js": ("reading.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/sample.png": ("sample.png", "image/png"),
}
PARAMETERS = ("decoder", "alternatives", "lm_weight")
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
STATUS_OF: Mapping[type[LonghandError], int] = {
    InvalidRequestError: 400,
    ModelNotFoundError: 404,
    OverloadedError: 429,
    AuthenticationError: 502,
    UnsupportedError: 501,
    ServerUnavailableError: 503,
    DeadlineExceededError: 504,
}


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of the gateway.

    Attributes:
        address: where the gRPC service is.
        tls: how to reach it encrypted; None = plain text.
        token: sent with every call to it; None = nothing.
        max_image_bytes: largest image accepted; the service takes no larger one unless it is told to.
        max_image_pixels: to which the page scales photographs down; what the service takes at most.
        timeout_s: seconds that one reading may take.
    """

    address: str
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    max_image_bytes: int = 4 * 1024 * 1024
    max_image_pixels: int = 3_000_000
    timeout_s: float = 20.0


class RefusedError(Exception):
    """A request that the gateway refuses by itself."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def build_app(config: GatewayConfig) -> Starlette:
    """The ASGI application.

    Args:
        config: where the service is, and the limits.

    Returns:
        The application; it connects when it starts, and starts without a service too.
    """
    static = resources.files(__package__) / "static"
    contents = {path: (static / name).read_bytes() for path, (name, _) in FILES.items()}

    async def file(request: Request) -> Response:
        path = request.url.path
        return Response(contents[path], media_type=FILES[path][1], headers={"cache-control": "no-cache"})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncRecognizerClient(
            config.address, timeout_s=config.timeout_s, retries=1, tls=config.tls, token=config.token
        ) as client:
            app.state.client = client
            yield

    routes = [Route(path, file) for path in FILES]
    routes += [
        Route("/health", _guarded(_health)),
        Route("/api/status", _guarded(_status)),
        Route("/api/recognize", _guarded(_recognize), methods=["POST"]),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={HTTPException: _refused},
    )
    app.state.config = config
    return app


def _parts(request: Request) -> tuple[GatewayConfig, AsyncRecognizerClient]:
    return request.app.state.config, request.app.state.client


async def _status(request: Request) -> Response:
    config, client = _parts(request)
    limits = {"max_image_bytes": config.max_image_bytes, "max_image_pixels": config.max_image_pixels}
    try:
        model = await client.model()
    except LonghandError as error:
        return JSONResponse({"ready": False, "message": error.message, "limits": limits})
    return JSONResponse({"ready": True, "model": _described(model), "limits": limits})


async def _health(request: Request) -> Response:
    _, client = _parts(request)
    try:
        answer = {"status": await client.health()}
    except LonghandError as error:
        answer = {"status": "UNKNOWN", "message": error.message}
    return JSONResponse(answer, status_code=200 if answer["status"] == "SERVING" else 503)


async def _recognize(request: Request) -> Response:
    config, client = _parts(request)
    _refuse_other_sites(request)
    options = await _options(request.query_params, client)
    image = await _body(request, config.max_image_bytes)
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        image = _file_of_form(kind, image)
    transcription = await client.recognize(image, options)
    return JSONResponse(transcription.to_dict())


async def _refused(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: another path, another method."""
    assert isinstance(error, HTTPException)
    reason = "METHOD_NOT_ALLOWED" if error.status_code == 405 else "NOT_FOUND"
    response = _problem(error.status_code, reason, f"{request.method} {request.url.path}: {error.detail}")
    response.headers.update(error.headers or {})
    return response


def _guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turns every expected failure into a JSON answer with a message for people."""

    async def guarded(request: Request) -> Response:
        headers = {"cache-control": "no-store"}
        try:
            response = await endpoint(request)
        except RefusedError as error:
            response = _problem(error.status, error.reason, str(error))
        except LonghandError as error:
            status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 500)
            response = _problem(status, error.reason or error.code, error.message)
            if error.retry_after_s is not None:
                headers["retry-after"] = str(max(math.ceil(error.retry_after_s), 1))
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody is there to read it
        response.headers.update(headers)
        return response

    return guarded


def _problem(status: int, reason: str, message: str) -> Response:
    return JSONResponse({"error": {"reason": reason, "message": message}}, status_code=status)


def _refuse_other_sites(request: Request) -> None:
    # A page of another site must not use a visitor's gateway; browsers say where a request comes from.
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "OTHER_SITE", "requests from other sites are refused")


async def _body(request: Request, limit: int) -> bytes:
    """The request's body, read no further than the limit."""
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if not declared.isdecimal() or int(declared) <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    megabytes = limit / 1024 / 1024
    raise RefusedError(413, "IMAGE_TOO_LARGE", f"the image is larger than {megabytes:g} MiB")


def _file_of_form(kind: str, body: bytes) -> bytes:
    """The first file of a form, as `curl -F file=@line.png` sends it."""
    # The standard library's parser (email) takes 3 s for 4 MiB of line breaks, in which nobody else is answered.
    header = email.message.Message()
    header["content-type"] = kind
    boundary = header.get_boundary("").encode(errors="replace")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:] if boundary else []:
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename" in head.lower():
            return content
    raise RefusedError(400, "INVALID_REQUEST", "the form holds no file, as of curl -F file=@line.png")


async def _options(parameters: Mapping[str, str], client: AsyncRecognizerClient) -> RecognitionOptions:
    for name in parameters:
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise RefusedError(400, "INVALID_REQUEST", f"no parameter {name!r}; there is: {known}")
    decoder = parameters.get("decoder") or None
    if decoder not in (None, "greedy", "beam"):
        raise RefusedError(400, "INVALID_REQUEST", f"decoder: got {decoder!r}, need 'greedy' or 'beam'")
    weight = _number(parameters, "lm_weight", 1.0, 0.0, 3.0)
    options = RecognitionOptions(
        decoder=cast(Literal["greedy", "beam"] | None, decoder),
        alternatives=int(_number(parameters, "alternatives", 5, 1, 20)),
        words=True,
        characters=True,
        priority="high",  # a person waits
    )
    return options if weight == 1.0 else with_language_weight(options, await client.model(), weight)


def _number(parameters: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = parameters.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise RefusedError(400, "INVALID_REQUEST", f"{name}: got {text!r}, need {low:g} to {high:g}")
    return value


def _described(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "device": model.device,
        "has_language_model": model.has_word_model or model.has_character_model,
    }


class _SecurityHeaders:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *extra]
            await send(message)

        await self._app(scope, receive, send_with_headers)
