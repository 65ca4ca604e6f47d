"""The server without its clients: reloads that fail, and addresses that cannot be had."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from helpers.toy_model import write_bundle
from longhand_server.config import ListenConfig, ModelsConfig, SecurityConfig, ServerConfig
from longhand_server.errors import ConfigurationError, InvalidModelError, UnauthenticatedError
from longhand_server.server import LonghandServer


@pytest.mark.parametrize("error", [InvalidModelError, RuntimeError, OSError])
async def test_a_reload_that_fails_changes_nothing(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def callers(token: str) -> str:
        return f"somebody {hashlib.sha256(token.encode()).hexdigest()}\n"

    async def fail() -> None:
        raise error("damaged")

    tokens = tmp_path / "tokens"
    tokens.write_text(callers("old"))
    bundle = write_bundle(tmp_path / "bundle")
    server = LonghandServer(
        ServerConfig(
            models=ModelsConfig(model=str(bundle)),
            security=SecurityConfig(token_file=str(tokens)),
        )
    )
    assert server._tokens is not None
    tokens.write_text(callers("new"))
    with monkeypatch.context() as patched:
        patched.setattr(server.registry, "reload", fail)
        caplog.set_level(logging.ERROR, "longhand_server")
        await server.reload()
    assert "everything stays as it was" in caplog.text
    assert server._tokens.authenticate("Bearer old").name == "somebody"
    with pytest.raises(UnauthenticatedError):
        server._tokens.authenticate("Bearer new")
    await server._server.stop(0)


async def test_a_unix_socket_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    models = ModelsConfig(model=str(write_bundle(tmp_path / "bundle")))
    host = f"unix:{tmp_path}/gone/socket"
    server = LonghandServer(ServerConfig(models=models, listen=ListenConfig(host=host)))
    with pytest.raises(ConfigurationError, match=f"port: cannot listen on {host}; is another server there"):
        await server.start()
    await server._server.stop(0)
