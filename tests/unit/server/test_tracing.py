"""Spans of calls, in memory."""

from __future__ import annotations

import sys

import pytest

from longhand_server.errors import ConfigurationError
from longhand_server.recognizer import Timings, Transcription
from longhand_server.tracing import Tracer, make_tracer

_RESULT = Transcription("private", 0.9, (), (), (), 640, 64, Timings(1.0, 2.0, 3.0, 4.0, 10.0, 5))


def test_a_call_is_a_span_in_the_callers_trace_with_an_event_for_each_image() -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracer = Tracer(export.SimpleSpanProcessor(exporter))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    span = tracer.begin("Recognize", "id-1", {"traceparent": parent, "grpc-x-bin": b"\x00"})
    span.line(_RESULT)
    span.end("OK", "", 3)
    (finished,) = exporter.get_finished_spans()
    assert finished.name == "Recognize"
    assert format(finished.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
    assert finished.attributes["longhand.request_id"] == "id-1"
    assert finished.attributes["rpc.response.status_code"] == "OK"
    assert finished.attributes["longhand.images"] == 3
    (event,) = finished.events
    assert event.attributes["longhand.infer_ms"] == 3.0
    assert "private" not in finished.to_json()
    tracer.close()


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)  # importing it fails from now on
    tracer = make_tracer("")
    span = tracer.begin("Recognize", "id-1", {})
    span.line(_RESULT)
    span.end("OK", "", 1)
    tracer.close()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[tracing\]'"):
        make_tracer("http://localhost:4317")
