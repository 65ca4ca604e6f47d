"""OpenTelemetry traces, where they are configured: one span a call, with an event for each image and its stage times.

Trace context comes from the caller's W3C ``traceparent`` metadata. Spans hold sizes and times, never image bytes or
text. The packages come with the extra ``tracing``; without ``--otlp-endpoint`` nothing of them is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from longhand_server.errors import ConfigurationError
from longhand_server.recognizer import Transcription

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span

_SERVICE = "longhand"


class CallSpan:
    """The span of one call; does nothing where there is no tracing."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    def line(self, result: Transcription) -> None:
        """Records an image that was read."""
        if self._span is None:
            return
        timings = result.timings
        self._span.add_event(
            "line",
            {
                "longhand.decode_image_ms": timings.decode_image_ms,
                "longhand.queue_ms": timings.queue_ms,
                "longhand.infer_ms": timings.infer_ms,
                "longhand.beam_ms": timings.beam_ms,
                "longhand.batch_size": timings.batch_size,
                "longhand.image_width_px": result.image_width,
                "longhand.confidence": result.confidence,
                "longhand.second_look": result.second_look,
            },
        )

    def end(self, code: str, reason: str, images: int) -> None:
        """Ends the span with the call's status."""
        if self._span is None:
            return
        self._span.set_attributes({"rpc.response.status_code": code, "longhand.reason": reason})
        self._span.set_attribute("longhand.images", images)
        self._span.end()


class Tracer:
    """Makes the spans of calls. Without a processor it makes none, at no cost.

    Args:
        processor: Takes the finished spans.
    """

    def __init__(self, processor: SpanProcessor | None = None) -> None:
        self._provider: TracerProvider | None = None
        if processor is None:
            return
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=Resource.create({"service.name": _SERVICE}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, request_id: str, metadata: Mapping[str, str | bytes]) -> CallSpan:
        """Begins the span of a call, within the caller's trace if its metadata names one."""
        if self._provider is None:
            return CallSpan()
        from opentelemetry.trace import SpanKind

        texts = {key: value for key, value in metadata.items() if isinstance(value, str)}
        names = {"rpc.system": "grpc", "rpc.method": method, "longhand.request_id": request_id}
        parent = self._propagator.extract(texts)
        return CallSpan(self._tracer.start_span(method, parent, SpanKind.SERVER, names))

    def close(self) -> None:
        """Sends what is still waiting."""
        if self._provider is not None:
            self._provider.shutdown()


def make_tracer(endpoint: str) -> Tracer:
    """A tracer that sends spans to an OTLP collector over gRPC; one that does nothing where it is empty.

    Raises:
        ConfigurationError: It is no address, or the packages are not installed.
    """
    if not endpoint:
        return Tracer()
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"otlp_endpoint: got {endpoint!r}, need http://HOST:PORT, or https://HOST:PORT to encrypt"
        )
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "otlp_endpoint: OpenTelemetry is not installed; pip install '.[tracing]' in Longhand's folder"
        ) from error
    return Tracer(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")))
    )
