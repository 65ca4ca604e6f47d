"""Log lines as text or JSON. What a request holds and what a model reads is never in them."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from longhand_server.config import ObserveConfig


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        return super().format(record) + "".join(f" {key}={value}" for key, value in fields.items())


class _JsonFormatter(_TextFormatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _shorten_undecodable(record: logging.LogRecord) -> bool:
    """Leaves one line of what gRPC says of a message that is no protobuf, which anybody can send."""
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__name__ == "DecodeError":
        record.msg, record.args = "a message could not be decoded: %s", (error,)
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _shorten_unsent(record: logging.LogRecord) -> bool:
    """Leaves one line of what gRPC says of an answer whose client left before it was sent."""
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__name__ == "ExecuteBatchError" and "SendMessage" in str(error):
        record.msg, record.args = "an answer could not be sent: its client is gone", ()
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True


def set_up_logging(config: ObserveConfig) -> None:
    """Sends all log lines of the process to standard error."""
    # A disk that is full must not stop the service, nor fill what is left with complaints about it.
    logging.raiseExceptions = False
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if config.log_format == "json" else _TextFormatter())
    handler.addFilter(_shorten_undecodable)
    handler.addFilter(_shorten_unsent)
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)
