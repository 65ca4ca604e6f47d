"""What becomes of a log record."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from longhand_server.config import ObserveConfig
from longhand_server.logs import _JsonFormatter, _shorten_unsent, _TextFormatter, set_up_logging


def record(error: Exception) -> logging.LogRecord:
    try:
        raise error
    except Exception:
        return logging.LogRecord("grpc", logging.ERROR, "", 0, "it failed", (), sys.exc_info())


def test_a_traceback_is_a_field_of_its_line() -> None:
    entry = json.loads(_JsonFormatter().format(record(ValueError("because"))))
    assert (entry["level"], entry["message"]) == ("error", "it failed")
    assert "ValueError: because" in entry["exception"]


def test_times_are_utc() -> None:
    entry = record(ValueError())
    entry.created, entry.msecs = 86_400.0, 7.0
    assert _TextFormatter().format(entry).startswith("1970-01-02T00:00:00.007Z ERROR grpc: it failed")


def test_a_message_that_anybody_can_send_takes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: given.update(settings))
    monkeypatch.setattr(logging, "raiseExceptions", True)
    set_up_logging(ObserveConfig())
    assert not logging.raiseExceptions  # nor do complaints about a full disk fill what is left of it
    (handler,) = given["handlers"]
    entry = record(DecodeError("no protobuf"))
    assert handler.filter(entry)
    assert entry.exc_info is None
    assert (entry.levelname, entry.getMessage()) == ("WARNING", "a message could not be decoded: no protobuf")


def test_a_client_that_left_takes_one_line_and_is_no_error() -> None:
    of_grpc: Any = importlib.import_module("grpc._cython.cygrpc")
    entry = record(of_grpc.ExecuteBatchError("(<SendMessageOperation>,)"))
    assert _shorten_unsent(entry)
    assert entry.exc_info is None
    assert (entry.levelname, entry.getMessage()) == (
        "INFO",
        "an answer could not be sent: its client is gone",
    )
