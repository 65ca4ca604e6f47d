"""`longhand --local`: reads in this process, without a server."""

from __future__ import annotations

import logging

from longhand_client.client import RecognizerClient
from longhand_client.errors import LonghandError


def in_process_client(folder: str, timeout_s: float) -> RecognizerClient:
    """A client whose calls are answered in this process.

    Args:
        folder: of the model to load; "" = the model that is shipped.
        timeout_s: seconds that a call may take.

    Raises:
        LonghandError: what the server is made of is not installed, or the model cannot be loaded.
    """
    # The client's one way into the server's package: nothing of it is loaded unless somebody reads with --local.
    try:
        from longhand_server.config import ModelsConfig, ServerConfig
        from longhand_server.errors import LonghandError as LoadingError
        from longhand_server.in_process import InProcessChannel
    except ImportError as error:
        raise LonghandError(
            "reading with --local needs the server's packages: "
            f"pip install '.[server]' in Longhand's folder ({error})"
        ) from error
    # The command itself says which images failed; unexpected failures still go to standard error.
    logging.getLogger("longhand_server").setLevel(logging.ERROR)
    models = ModelsConfig(model=folder) if folder else ModelsConfig()
    try:
        channel = InProcessChannel(ServerConfig(models=models))
    except LoadingError as error:
        raise LonghandError(error.message, code=error.code, reason=error.reason) from error
    return RecognizerClient("this process", timeout_s=timeout_s, retries=0, channel=channel)
