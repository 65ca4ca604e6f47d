"""A small in-process server for the client's tests: it answers by what the image's bytes say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc as rpc


def make_status(
    code: grpc.StatusCode, message: str, reason: str, retry_ms: int | None = None
) -> status_pb2.Status:
    """A status with the details that a Longhand server attaches."""
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="longhand"))
    if retry_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_ms)
        status.details.add().Pack(retry)
    return status


@dataclass
class FakeServicer(rpc.RecognitionServiceServicer):
    """Answers b"text:abc" with "abc", b"bad" with INVALID_IMAGE, and so on; remembers what it was sent."""

    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    failures_left: int = 0
    stream_images: int = 0
    stream_group: int = 1
    stream_knows_groups: bool = False
    stream_messages: int = 0
    stream_breaks: int = 0
    stream_break_after: int = 0
    stream_breaks_silently: bool = False
    stream_refused: range = range(0)  # numbers of the calls, from 0
    stream_fails_in_the_end: bool = False
    stream_break_code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, image: bytes) -> pb.RecognitionResult | status_pb2.Status:
        if image.startswith(b"text:"):
            text = image[5:].decode()
            result = pb.RecognitionResult(text=text, confidence=0.75, model="en", model_version="1.0.0")
            best = result.alternatives.add(text=text, confidence=0.75, total_log_probability=-1.5)
            best.acoustic_log_probability, best.language_model_log_probability = -1.0, -0.5
            result.words.add(text=text, confidence=0.5, x_start_px=3.0, x_end_px=40.0)
            result.characters.add(text=text[:1], confidence=0.5, x_start_px=3.0, x_end_px=8.0)
            result.timings.infer_ms = 12.0
            result.timings.batch_size = 4
            result.image_width_px, result.image_height_px = 640, 48
            return result
        if image == b"bad":
            return make_status(grpc.StatusCode.INVALID_ARGUMENT, "image: got 3 bytes", "INVALID_IMAGE")
        if image == b"full":
            return make_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", "OVERLOADED", 250)
        if image == b"token":
            return make_status(grpc.StatusCode.UNAUTHENTICATED, "no token", "UNAUTHENTICATED")
        if image == b"model":
            return make_status(grpc.StatusCode.NOT_FOUND, "no model 'xx'", "MODEL_NOT_FOUND")
        return make_status(grpc.StatusCode.INTERNAL, "broken", "RECOGNITION_FAILED")

    def Recognize(self, request: pb.RecognizeRequest, context: Any) -> pb.RecognizeResponse:
        with self.lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            if self.failures_left > 0:
                self.failures_left -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
        if request.image == b"slow":
            threading.Event().wait(2.0)
        outcome = self.answer(request.image)
        if isinstance(outcome, pb.RecognitionResult):
            return pb.RecognizeResponse(result=outcome)
        details = ("grpc-status-details-bin", outcome.SerializeToString())
        context.set_trailing_metadata((details, ("x-request-id", "abc-1")))
        code = next(code for code in grpc.StatusCode if code.value[0] == outcome.code)
        context.abort(code, outcome.message)
        raise AssertionError("abort raises")

    def BatchRecognize(self, request: pb.BatchRecognizeRequest, context: Any) -> pb.BatchRecognizeResponse:
        self.requests.append(request)
        response = pb.BatchRecognizeResponse()
        for item in request.items:
            outcome = self.answer(item.image)
            if isinstance(outcome, pb.RecognitionResult):
                response.outcomes.add(request_id=item.request_id, result=outcome)
            else:
                response.outcomes.add(request_id=item.request_id, error=outcome)
        return response

    def StreamingRecognize(
        self, request_iterator: Any, context: Any
    ) -> Iterator[pb.StreamingRecognizeResponse]:
        first = next(request_iterator)
        assert first.WhichOneof("message") == "config"
        with self.lock:
            self.requests.append(first)
            self.metadata.append(dict(context.invocation_metadata()))
            refused = len(self.requests) - 1 in self.stream_refused
        if refused:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        held: list[pb.StreamingRecognizeResponse] = []
        for number, image in enumerate(self._stream_images(request_iterator), 1):
            with self.lock:
                self.stream_images += 1
                breaks = self.stream_breaks > 0 and number > self.stream_break_after
                self.stream_breaks -= breaks
            if breaks and self.stream_breaks_silently:
                return
            if breaks:
                context.abort(self.stream_break_code, "stopping")
            if image.image == b"lost":
                continue
            held.insert(0, self._stream_answer(image))
            # Answers in groups, each group backwards.
            if len(held) >= self.stream_group:
                yield from self._stream_messages(held)
                held.clear()
        yield from self._stream_messages(held)
        if self.stream_fails_in_the_end:
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")

    def _stream_images(self, requests: Any) -> Iterator[pb.StreamingRecognizeImage]:
        for request in requests:
            self.stream_messages += 1
            if self.stream_knows_groups and request.HasField("images"):
                yield from request.images.images
            else:
                # What an older server does.
                assert request.HasField("image")
                yield request.image

    def _stream_messages(
        self, answers: list[pb.StreamingRecognizeResponse]
    ) -> Iterator[pb.StreamingRecognizeResponse]:
        if not self.stream_knows_groups:
            yield from answers
        elif answers:
            group = pb.StreamingRecognizeAnswers(answers=answers, max_images=100, max_image_bytes=1 << 18)
            yield pb.StreamingRecognizeResponse(answers=group)

    def _stream_answer(self, image: pb.StreamingRecognizeImage) -> pb.StreamingRecognizeResponse:
        outcome = self.answer(image.image)
        response = pb.StreamingRecognizeResponse(request_id=image.request_id)
        if isinstance(outcome, pb.RecognitionResult):
            response.result.CopyFrom(outcome)
        else:
            response.error.CopyFrom(outcome)
        return response

    def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[self._model()])

    def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        if request.name not in ("", "en"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name!r}")
        return pb.GetModelResponse(model=self._model())

    def _model(self) -> pb.Model:
        model = pb.Model(name="en", version="1.0.0", alphabet="abc", is_default=True, device="cpu")
        model.state = pb.MODEL_STATE_READY
        model.default_options.kind = pb.DECODER_KIND_BEAM
        model.default_options.beam_width = 50
        model.default_options.word_weight = 0.5
        model.default_options.character_weight = 0.25
        return model


@dataclass
class FakeServer:
    """A running fake server."""

    servicer: FakeServicer
    server: grpc.Server
    address: str


@contextmanager
def running_server() -> Iterator[FakeServer]:
    servicer = FakeServicer()
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 1 << 20)])
    rpc.add_RecognitionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield FakeServer(servicer, server, f"127.0.0.1:{port}")
    finally:
        server.stop(0).wait()
