"""Longhand on Ray Serve: the same service, with replicas that Ray places, watches and scales.

``serve deploy server/deploy/ray/longhand.yaml`` runs :func:`build_app`. Ray's gRPC proxies take the calls
(:mod:`longhand_server.ray_proxy`), replicas of :class:`Gateway` answer them with the plain server's own servicer and
prepare the images, and replicas of :class:`longhand_server.ray_recognition.Recognition` read the lines.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from longhand.v1 import recognition_pb2 as pb
from longhand_server.calls import CallGate
from longhand_server.config import ServerConfig
from longhand_server.metrics import Metrics
from longhand_server.ray_config import NEEDED, application_config
from longhand_server.registry import ModelRegistry
from longhand_server.remote import RemoteModel
from longhand_server.security import TokenStore
from longhand_server.servicer import RecognitionServicer
from longhand_server.tracing import make_tracer

try:
    from ray import serve

    from longhand_server.ray_recognition import Recognition, RecognitionHandle, with_own_threads
except ImportError as missing:
    raise ImportError(f"Ray Serve is not installed here: {NEEDED} ({missing})") from missing

_SERVICE: str = pb.DESCRIPTOR.services_by_name["RecognitionService"].full_name
# Lines that one replica may have at a time: on a GPU four batches' worth, of which the next batch is picked.
_CPU_ONGOING, _GPU_ONGOING = 16, 256


class _RefusedError(Exception):
    """The call has ended, with the code, message and trailing metadata that are in its context."""


class _Context:
    """As much of gRPC's context as the servicer uses, over Ray's."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def invocation_metadata(self) -> list[tuple[str, str]]:
        metadata: list[tuple[str, str]] = self._context.invocation_metadata()
        return metadata

    def time_remaining(self) -> None:
        """Unknown: Ray keeps the client's deadline to itself, and cancels the call when it has passed."""

    def peer(self) -> str:
        return str(self._context.peer())

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._context.set_trailing_metadata(list(metadata))

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Ray closes the generator of a stream that is cancelled, which is enough."""

    async def abort(
        self, code: grpc.StatusCode, details: str, metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> Never:
        self._context.set_code(code)
        self._context.set_details(details)
        self.set_trailing_metadata(metadata)
        raise _RefusedError


class Gateway:
    """Answers longhand.v1.RecognitionService and grpc.health.v1.Health, and prepares the images.

    Args:
        config: The settings.
        in_flight: Most images that are prepared or read at a time; the others wait in a fair queue.
        recognition: Ray's handle to the replicas that read lines.

    Raises:
        InvalidModelError: A model is missing or damaged.
        ConfigurationError: The token file is wrong.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, config: ServerConfig, in_flight: int, recognition: Any
    ) -> None:
        reader, metrics = RecognitionHandle(recognition), Metrics()
        self._limits = config.listen
        # What computes is elsewhere, perhaps on a device that this machine has not.
        here = with_own_threads(replace(config, runtime=replace(config.runtime, device="cpu")))
        registry = ModelRegistry(
            here, metrics, lambda bundle: RemoteModel(bundle, here, metrics, reader, in_flight)
        )
        tokens = TokenStore(Path(config.security.token_file)) if config.security.token_file else None
        gate = CallGate(
            metrics,
            make_tracer(config.observe.otlp_endpoint),
            tokens,
            max_open=config.listen.max_calls,
            log_calls=config.observe.log_calls,
        )
        self._servicer = RecognitionServicer(registry, config.listen, gate, metrics)
        await registry.load()

    async def Recognize(self, request: pb.RecognizeRequest, grpc_context: Any) -> Message:
        """Reads one image."""
        return await self._answer(self._servicer.Recognize, request, grpc_context)

    async def BatchRecognize(self, request: pb.BatchRecognizeRequest, grpc_context: Any) -> Message:
        """Reads many images."""
        return await self._answer(self._servicer.BatchRecognize, request, grpc_context)

    async def ListModels(self, request: pb.ListModelsRequest, grpc_context: Any) -> Message:
        """Lists the models served."""
        return await self._answer(self._servicer.ListModels, request, grpc_context)

    async def GetModel(self, request: pb.GetModelRequest, grpc_context: Any) -> Message:
        """Describes one model."""
        return await self._answer(self._servicer.GetModel, request, grpc_context)

    async def StreamingRecognize(
        self, requests: AsyncIterator[pb.StreamingRecognizeRequest], grpc_context: Any
    ) -> AsyncIterator[pb.StreamingRecognizeResponse]:
        """Reads images as they come."""
        context: Any = _Context(grpc_context)
        try:
            async with contextlib.aclosing(self._servicer.StreamingRecognize(requests, context)) as answers:  # type: ignore[type-var]
                async for answer in answers:
                    yield answer
        except _RefusedError:
            yield pb.StreamingRecognizeResponse()

    async def Check(self, request: health_pb2.HealthCheckRequest, grpc_context: Any) -> Message:
        """A replica is asked only once it has loaded."""
        if request.service in ("", _SERVICE):
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
        grpc_context.set_details(f"service {request.service!r} is not served here")
        return health_pb2.HealthCheckResponse()

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, grpc_context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Not offered: replicas come and go behind a proxy, and a stream stays with one of them."""
        grpc_context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        grpc_context.set_details("on Ray Serve ask with Check: a stream would watch a single replica")
        yield health_pb2.HealthCheckResponse()

    async def _answer(self, method: Callable[..., Any], request: Message, grpc_context: Any) -> Message:
        size, most = request.ByteSize(), self._limits.max_request_bytes
        if size > most:
            grpc_context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            grpc_context.set_details(f"Received message larger than max ({size} vs. {most})")
            return pb.RecognizeResponse()
        try:
            answer: Message = await method(request, _Context(grpc_context))
        except _RefusedError:
            # The proxy sends the code with any answer, and then not the answer.
            return pb.RecognizeResponse()
        return answer


def build_app(arguments: Mapping[str, Any]) -> Any:
    """The application, for ``import_path: longhand_server.ray_app:build_app``.

    Args:
        arguments: Section to key to value, as in the server's TOML file, and the section ``ray``.

    Returns:
        The application, one replica of each deployment; the Serve configuration says how many, and what each of
        them has. (Autoscaling from here would silently win over a number of replicas there.)

    Raises:
        ConfigurationError: An unknown key, or a wrong value: both are named with what is allowed.
    """
    config, on_ray = application_config(arguments)
    ongoing = _CPU_ONGOING if config.runtime.device in ("auto", "cpu") else _GPU_ONGOING
    recognition = serve.deployment(
        Recognition,
        max_ongoing_requests=ongoing,
        ray_actor_options={"num_cpus": 1},
        # Reading a line takes long where the CPU is shared; a network that hangs takes for ever.
        health_check_period_s=10,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=config.listen.grace_s,
    )
    gateway = serve.deployment(
        Gateway,
        # Our own bound comes first: its refusal says when to come back.
        max_ongoing_requests=config.listen.max_calls + 100,
        ray_actor_options={"num_cpus": 1},
        graceful_shutdown_timeout_s=config.listen.grace_s,
    )
    return gateway.bind(config, on_ray.in_flight, recognition.bind(config))
