"""Which lines of a load count."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from longhand.v1 import recognition_pb2 as pb
from longhand_client.bench.load import Load, _call, _Recorder
from longhand_client.errors import LonghandError


class Full:
    """A way to a server that takes nothing."""

    async def single(self) -> pb.Timings:
        raise LonghandError("full", code="RESOURCE_EXHAUSTED")

    async def batch(self) -> list[pb.Timings | LonghandError]:
        raise LonghandError("full", code="RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(("call", "lines"), [("unary", 1), ("batch", 16)])
async def test_a_call_that_fails_counts_as_all_of_its_lines(call: Any, lines: int) -> None:
    load = Load("host", call=call, batch_size=16, duration_s=60.0, warm_up_s=0.0)
    recorder = _Recorder(load)
    for _ in range(2):
        await _call(cast(Any, Full()), load, recorder, time.perf_counter())
    assert recorder.sample.errors == {"RESOURCE_EXHAUSTED": 2 * lines}


@pytest.mark.parametrize("rate", [0.0, 10.0])
async def test_a_line_that_left_in_time_and_comes_back_late_counts_in_an_open_loop_alone(rate: float) -> None:
    recorder = _Recorder(Load("host", rate=rate, duration_s=1e-3, warm_up_s=0.0))
    time.sleep(0.002)
    assert recorder.over
    for started in (recorder.begin - 1, recorder.begin, recorder.end):
        recorder.record(started, pb.Timings())
    sample = recorder.finish()
    assert len(sample.latencies_ms) == (1 if rate else 0)
    assert sample.completed == 0  # throughput is of the lines that came back in it
