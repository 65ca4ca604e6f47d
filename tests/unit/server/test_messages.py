"""Requests that would take long to look at are refused before that."""

from __future__ import annotations

import time

import pytest

from longhand.v1 import recognition_pb2 as pb
from longhand_server.errors import InvalidRequestError
from longhand_server.messages import read_options


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (pb.RecognitionOptions(hotwords=[pb.Hotword()] * 500_000), "options.hotwords"),
        (pb.RecognitionOptions(allowed_characters="0" * 30_000_000), "options.allowed_characters"),
    ],
    ids=["hotwords", "characters"],
)
def test_endless_lists_are_refused_at_once(options: pb.RecognitionOptions, field: str) -> None:
    begun = time.process_time()
    with pytest.raises(InvalidRequestError, match="at most 10") as caught:
        read_options(options)
    assert caught.value.field == field
    assert time.process_time() - begun < 0.2
