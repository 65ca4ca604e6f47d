"""What Prometheus gets to see: the right numbers, in seconds and shares."""

from __future__ import annotations

import time

import pytest

from longhand_server.metrics import Metrics
from longhand_server.recognizer import Timings, Transcription
from longhand_server.statistics import Duration, ModelStatistics


def reading(timings: Timings, confidence: float = 1.0) -> Transcription:
    return Transcription("a", confidence, (), (), (), 9, 9, timings)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"longhand_{name}", {"model": "en", **labels})


def test_stages_are_told_apart_and_counted_in_seconds(metrics: Metrics) -> None:
    timings = Timings(decode_image_ms=1.0, queue_ms=20.0, infer_ms=300.0, beam_ms=4000.0, batch_size=1)
    for _ in range(2):
        metrics.line_read("en", reading(timings))
    for stage, seconds in (("decode_image", 0.001), ("queue", 0.02), ("infer", 0.3), ("beam", 4.0)):
        assert value(metrics, "stage_seconds_sum", stage=stage) == pytest.approx(2 * seconds)
    # A bucket holds its own upper bound and all that is below.
    assert value(metrics, "stage_seconds_bucket", stage="decode_image", le="0.001") == 2
    assert value(metrics, "stage_seconds_bucket", stage="queue", le="0.01") == 0
    assert value(metrics, "stage_seconds_bucket", stage="queue", le="+Inf") == 2


def test_confidences_batches_and_padding(metrics: Metrics) -> None:
    for confidence in (0.5, 0.75):
        metrics.line_read("en", reading(Timings(), confidence))
    assert value(metrics, "confidence_sum") == 1.25
    assert value(metrics, "confidence_bucket", le="0.6") == 1
    metrics.batch_started("en", [100, 60])
    assert value(metrics, "batch_size_sum") == 2
    assert value(metrics, "batch_padding_sum") == pytest.approx(0.2)


def test_queues_of_a_model_count_together_while_they_are_there(metrics: Metrics) -> None:
    old, new = object(), object()
    metrics.watch_queue(old, "en", lambda: 3)
    metrics.watch_queue(new, "en", lambda: 4)
    assert value(metrics, "queue_images") == 7
    metrics.unwatch_queue(old)
    assert value(metrics, "queue_images") == 4


def test_open_calls_are_those_that_have_begun_and_not_ended(metrics: Metrics) -> None:
    for _ in range(3):
        metrics.call_began()
    metrics.call_ended("Recognize", "OK", "", 0.1)
    assert metrics.registry.get_sample_value("longhand_calls_in_progress") == 2


def test_a_model_s_own_statistics() -> None:
    statistics = ModelStatistics()
    with statistics.request():
        statistics.batch_started(2)
        for _ in range(2):
            statistics.image_read(reading(Timings(1.0, 20.0, 300.0, 4000.0, 5000.0, 2)))
        statistics.image_read(reading(Timings(1.0, 20.0)))  # blank: neither network nor beam search saw it
    assert statistics.images == 3
    assert statistics.decode_image == Duration(3, 3_000_000)
    assert statistics.queue == Duration(3, 60_000_000)
    assert statistics.infer == Duration(2, 600_000_000)
    assert statistics.beam == Duration(2, 8_000_000_000)
    assert statistics.batches == {2: Duration(1, 300_000_000)}
    assert statistics.last_ms == pytest.approx(time.time() * 1000, abs=60_000)
