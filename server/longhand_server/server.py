"""The gRPC server: service, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import ProcessCollector, start_http_server

from longhand.oip import inference_pb2, inference_pb2_grpc
from longhand.v1 import recognition_pb2, recognition_pb2_grpc
from longhand_server.calls import CallGate
from longhand_server.config import ObserveConfig, ServerConfig
from longhand_server.errors import ConfigurationError, LonghandError
from longhand_server.metrics import Metrics
from longhand_server.oip_servicer import InferenceServicer
from longhand_server.ports import cannot_listen, join_address, reserve_port, write_port
from longhand_server.registry import ModelRegistry
from longhand_server.security import TokenStore, check_exposure, server_credentials
from longhand_server.servicer import RecognitionServicer
from longhand_server.standard_streams import announce
from longhand_server.token_guard import TokenGuard
from longhand_server.tracing import make_tracer

# Seconds in which calls that are on their way still arrive and are turned away properly.
_SETTLE_S = 0.3
_LOG = logging.getLogger(__name__)
_SERVICES = (
    recognition_pb2.DESCRIPTOR.services_by_name["RecognitionService"],
    inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
SERVICE_NAME: str = _SERVICES[0].full_name
_INFERENCE_NAME: str = _SERVICES[1].full_name
# Any message can be large: what a method does not know is read as well. Of streams nothing is read before they are
# let in, and the last three need no token.
_GUARDED = [
    f"/{service.full_name}/{method.name}"
    for service in _SERVICES
    for method in service.methods
    if not method.client_streaming and method.name not in ("ServerLive", "ServerReady", "ModelReady")
]


class LonghandServer:
    """A server that listens, answers, reloads and can be drained.

    Attributes:
        port: The port that it listens on.
        metrics_port: The port of its metrics, -1 where it has none.
        registry: The models served.
    """

    def __init__(self, config: ServerConfig) -> None:
        """Raises what :func:`build_server` raises, but loads no model and binds no port yet."""
        security = config.security
        check_exposure(config.listen, security)
        self._config = config
        self._credentials = server_credentials(security)
        self._tokens = TokenStore(Path(security.token_file)) if security.token_file else None
        self._metrics = Metrics()
        self.registry = ModelRegistry(config, self._metrics)
        self._tracer = make_tracer(config.observe.otlp_endpoint)
        self._gate = CallGate(
            self._metrics,
            self._tracer,
            self._tokens,
            max_open=config.listen.max_calls,
            log_calls=config.observe.log_calls,
        )
        recognition = RecognitionServicer(self.registry, config.listen, self._gate, self._metrics)
        self._inference = InferenceServicer(self.registry, config, self._gate, self._metrics)
        self._health = health.aio.HealthServicer()
        guards = [] if self._tokens is None else [TokenGuard(self._tokens, self._gate, _GUARDED)]
        self._server = grpc.aio.server(interceptors=guards, options=_channel_options(config))
        recognition_pb2_grpc.add_RecognitionServiceServicer_to_server(recognition, self._server)
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, _INFERENCE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = 0
        self.metrics_port = -1

    async def start(self) -> None:
        """Loads the models, binds the ports, answers; the health service says SERVING from here on.

        Raises:
            InvalidModelError: A model cannot be loaded.
            PortTakenError: Another program has a port.
            ConfigurationError: A port cannot be bound for another reason.
        """
        await self.registry.load()
        self.port = self._bind()
        observe = self._config.observe
        if observe.metrics_port >= 0:
            self.metrics_port = _serve_metrics(observe, self._metrics)
        await self._server.start()
        for name in ("", SERVICE_NAME, _INFERENCE_NAME):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def reload(self) -> None:
        """Reads models and tokens again; what is wrong is logged, and everything stays as it was."""
        try:
            callers = None if self._tokens is None else self._tokens.read()
            await self.registry.reload()
        except (LonghandError, OSError) as error:
            _LOG.error("reload failed, everything stays as it was: %s", error)
        except Exception:
            # Whatever it was, the next reload must find somebody who listens.
            _LOG.exception("reload failed unexpectedly, everything stays as it was")
        else:
            if self._tokens is not None and callers is not None:
                self._tokens.use(callers)
                self._gate.end_revoked()
            _LOG.info("reloaded; serving %s", self.registry.listed())

    async def drain(self, grace_s: float) -> None:
        """Says NOT_SERVING, then refuses new calls and lets accepted ones finish for up to ``grace_s`` seconds.

        All of it is over within a second more.
        """
        await self._health.enter_graceful_shutdown()
        self._inference.say_not_ready()
        # Load balancers get a moment to notice; until it is over new calls are still welcome.
        await asyncio.sleep(self._config.listen.drain_delay_s)
        end = asyncio.get_running_loop().time() + grace_s
        # gRPC would cancel calls that have arrived but whose handlers have not begun, so for a moment the
        # handlers themselves turn new calls away, with UNAVAILABLE, which clients retry elsewhere.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._gate.drain()
                await asyncio.sleep(_SETTLE_S)  # clients send on at once when they have an answer
        # What is still open watches the health service.
        await self._server.stop(min(_SETTLE_S, max(0.0, end - asyncio.get_running_loop().time())))
        # What a client no longer waits for may still be worked on, and a collector of traces may be gone; neither
        # holds the process.
        last = max(end, asyncio.get_running_loop().time() + _SETTLE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(last):
                await self.registry.close()
        closing = threading.Thread(target=self._tracer.close, name="longhand-traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, max(last - asyncio.get_running_loop().time(), _SETTLE_S))

    def _bind(self) -> int:
        listen = self._config.listen
        address = join_address(listen.host, listen.port)
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            if not listen.host.startswith("unix:"):
                reserve_port(listen).close()  # raises with the reason, which gRPC does not tell
            raise ConfigurationError(f"port: cannot listen on {address}; is another server there?") from error


async def build_server(config: ServerConfig) -> LonghandServer:
    """Builds a server and starts it.

    Raises:
        InvalidModelError: A model is missing or damaged.
        PortTakenError: Another program has a port.
        ConfigurationError: A port cannot be bound for another reason, the device is not there, or a security file is
            wrong.
    """
    server = LonghandServer(config)
    await server.start()
    return server


async def serve(config: ServerConfig, *, supervised: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, then drains; SIGHUP reloads models and tokens.

    Args:
        config: The settings.
        supervised: Whether the end of standard input, which a parent holds open, means to stop as well.

    Raises:
        InvalidModelError, PortTakenError, ConfigurationError: See :func:`build_server`.
    """
    loop = asyncio.get_running_loop()
    stop, reload = asyncio.Event(), asyncio.Event()
    # From the start: what lies on disk may have changed since it was read, and otherwise the signal would kill.
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await build_server(config)
    # What is there now stays; the garbage collector need not look at it again and again.
    gc.freeze()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    if supervised:
        loop.add_reader(0, lambda: None if os.read(0, 1024) else stop.set())
    announce(_announcement(server, config))
    if config.listen.port_file:
        write_port(Path(config.listen.port_file), server.port)
    reloading = loop.create_task(_reload_on(reload, server))
    await stop.wait()
    reloading.cancel()
    if supervised:
        loop.remove_reader(0)
    _LOG.info("stopping: finishing accepted calls for up to %g s", config.listen.grace_s)
    await server.drain(config.listen.grace_s)


async def _reload_on(signalled: asyncio.Event, server: LonghandServer) -> None:
    while await signalled.wait():
        signalled.clear()
        await server.reload()


def _announcement(server: LonghandServer, config: ServerConfig) -> str:
    loaded = server.registry.default.loaded
    assert loaded is not None  # the default model never waits for its first request
    noun = "model" if len(server.registry.all()) == 1 else "models"
    address = join_address(config.listen.host, server.port)
    text = (
        f"Longhand serving {noun} {server.registry.listed()} ({loaded.device}, {loaded.runtime}) on {address}"
    )
    if server.metrics_port < 0:
        return text
    address = join_address(config.observe.metrics_host, server.metrics_port)
    return f"{text}\nmetrics on http://{address}/metrics"


def _serve_metrics(observe: ObserveConfig, metrics: Metrics) -> int:
    try:
        http, _ = start_http_server(
            observe.metrics_port, observe.metrics_host.strip("[]"), registry=metrics.registry
        )
    except OSError as error:
        raise cannot_listen("metrics_port", observe.metrics_host, observe.metrics_port, error) from error
    ProcessCollector(registry=metrics.registry)
    return int(http.server_port)


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    age_ms = round(config.listen.max_connection_age_s * 1000)
    return [
        ("grpc.max_receive_message_length", config.listen.max_request_bytes),
        # A client that is gone without a word is noticed; one that stays idle may ping every 10 s.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that connects again asks DNS again. gRPC spreads the time by 10 %; INT_MAX means never.
        ("grpc.max_connection_age_ms", age_ms or 2**31 - 1),
        # Nobody holds a place without saying anything.
        ("grpc.server_handshake_timeout_ms", 20_000),
        ("grpc.max_metadata_size", 16 * 1024),
        # gRPC unpacks a compressed message before it looks at its size, and images are compressed already.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port share its calls only where somebody asked for it.
        ("grpc.so_reuseport", int(config.listen.reuse_port)),
    ]
