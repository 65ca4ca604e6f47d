"""What the web page's gateway makes of a request, without a server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

pytest.importorskip("starlette", reason="the web page is not installed (extra: web)")

from starlette.requests import Request
from starlette.responses import Response

from longhand_client import Model, Tls
from longhand_client import errors as e
from longhand_web import gateway


class Client:
    """Describes a model whose decoder has been tuned."""

    async def model(self) -> Model:
        tuned: dict[str, str | int | float] = {"word_weight": 0.5, "character_weight": 0.25}
        return described(True, True, tuned)


def described(words: bool, characters: bool, options: dict[str, str | int | float]) -> Model:
    return Model("en", "1", "", "abc", True, "ready", "cpu", words, characters, options)


async def test_the_weight_of_the_language_models_is_a_factor_of_the_tuned_one() -> None:
    client = cast(Any, Client())
    options = await gateway._options({"lm_weight": "2"}, client)
    assert (options.word_weight, options.character_weight) == (1.0, 0.5)
    options = await gateway._options({"lm_weight": "1"}, client)
    assert (options.word_weight, options.character_weight) == (None, None)


async def test_a_reading_for_the_page_has_everything_and_goes_first() -> None:
    options = await gateway._options({}, cast(Any, Client()))
    assert (options.words, options.characters, options.alternatives, options.priority) == (
        True,
        True,
        5,
        "high",
    )


async def test_the_service_is_reached_with_the_page_s_token_and_encryption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def client(address: str, **how: Any) -> AsyncIterator[None]:
        reached.update(how, address=address)
        yield

    monkeypatch.setattr(gateway, "AsyncRecognizerClient", client)
    tls = Tls()
    app = gateway.build_app(gateway.GatewayConfig("host:1", tls=tls, token="secret", timeout_s=7.0))
    async with app.router.lifespan_context(app):
        assert (reached["address"], reached["token"], reached["timeout_s"]) == ("host:1", "secret", 7.0)
        assert reached["tls"] is tls


def test_names_of_a_form_s_parameters_are_written_in_any_case() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; FileName="line.png"\r\n\r\n'
    assert gateway._file_of_form("multipart/form-data; boundary=b", head + b"image\r\n--b--\r\n") == b"image"


@pytest.mark.parametrize("models", [(True, True), (True, False), (False, True), (False, False)])
def test_either_language_model_is_one_to_weigh(models: tuple[bool, bool]) -> None:
    assert gateway._described(described(*models, {}))["has_language_model"] == any(models)


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (e.InvalidImageError("no image", reason="INVALID_IMAGE"), 400, None),
        (e.ModelNotFoundError("no model"), 404, None),
        (e.OverloadedError("full", retry_after_s=0.25), 429, "1"),
        (e.OverloadedError("full", retry_after_s=1.25), 429, "2"),
        (
            e.AuthenticationError("no token"),
            502,
            None,
        ),  # the gateway's own, of which its visitor knows nothing
        (e.UnsupportedError("not here"), 501, None),
        (e.ServerUnavailableError("stopping", code="UNAVAILABLE"), 503, None),
        (e.DeadlineExceededError("late"), 504, None),
        (e.ServerError("broken", code="INTERNAL"), 500, None),
    ],
)
async def test_failures_of_the_service_are_told_as_http_does(
    error: e.LonghandError, status: int, wait: str | None
) -> None:
    async def endpoint(_: Request) -> Response:
        raise error

    answer = await gateway._guarded(endpoint)(cast(Any, None))
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, wait)
    assert answer.headers["cache-control"] == "no-store"
    told = {"reason": error.reason or error.code, "message": error.message}
    assert json.loads(bytes(answer.body)) == {"error": told}
