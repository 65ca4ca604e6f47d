"""Answers the Open Inference Protocol: the same models, queue, limits and errors as our own service."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from longhand.oip import inference_pb2 as oip
from longhand_server import __version__, oip_models, oip_tensors
from longhand_server.calls import Call, CallGate, Context, as_known
from longhand_server.config import ServerConfig
from longhand_server.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    UnauthenticatedError,
)
from longhand_server.metrics import Metrics
from longhand_server.oip_parameters import named_as_here, read_parameters
from longhand_server.oip_refusals import RefusingServicer
from longhand_server.oip_stream import OrderedInference
from longhand_server.registry import ModelRegistry, ServedModel
from longhand_server.streaming import AnswerStream
from longhand_server.work import Work

# Metadata with which a client asks that an error end its stream with a gRPC status.
_STRICT_KEY = "triton_grpc_error"


class InferenceServicer(RefusingServicer):
    """Answers inference.GRPCInferenceService.

    Args:
        registry: The models served.
        config: The server's settings.
        gate: What every call goes through, except questions whether the server is ready.
        metrics: Counts images.
    """

    def __init__(
        self, registry: ModelRegistry, config: ServerConfig, gate: CallGate, metrics: Metrics
    ) -> None:
        super().__init__(gate)
        self._registry = registry
        self._config = config
        self._metrics = metrics
        self._ready = True
        self._stream_numbers = itertools.count()

    def say_not_ready(self) -> None:
        """From now on the server and its models say that they are not ready; requests are still answered."""
        self._ready = False

    async def ServerLive(self, request: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:
        """Says that the process answers."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:
        """Says whether requests are welcome."""
        return oip.ServerReadyResponse(ready=self._ready)

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:
        """Says whether requests for a model are welcome; one that is loaded lazily counts as ready."""
        try:
            model = oip_models.find_model(self._registry, request.name, request.version)
        except ModelNotFoundError:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=self._ready and not model.failed)

    async def ServerMetadata(
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Describes the server."""
        async with self._gate.call("ServerMetadata", context):
            pass
        return oip.ServerMetadataResponse(
            name="longhand",
            version=__version__,
            extensions=oip_models.EXTENSIONS,
        )

    async def ModelMetadata(
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """Describes a model's tensors."""
        response = oip.ModelMetadataResponse()
        async with self._gate.call("ModelMetadata", context):
            model = self._find(request.name, request.version)
            versions = [other.version for other in self._registry.all() if other.name == model.name]
            response.CopyFrom(oip_models.write_metadata(model, versions))
        return response

    async def ModelConfig(self, request: oip.ModelConfigRequest, context: Context) -> oip.ModelConfigResponse:
        """Describes a model's setup."""
        response = oip.ModelConfigResponse()
        async with self._gate.call("ModelConfig", context):
            model = self._find(request.name, request.version)
            config = oip_models.write_config(model, self._config, self._registry.device)
            response.config.CopyFrom(config)
        return response

    async def ModelStatistics(
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        """Tells what models have done, by whichever protocol they were asked."""
        response = oip.ModelStatisticsResponse()
        async with self._gate.call("ModelStatistics", context):
            models = self._registry.all()
            if request.version:
                models = [self._find(request.name, request.version)]
            elif request.name:
                self._find(request.name, "")
                models = [model for model in models if model.name == request.name]
            response.model_stats.extend(
                oip_models.write_statistics(model, self._registry) for model in models
            )
        return response

    async def RepositoryIndex(
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        """Lists the models served, the default one first."""
        response = oip.RepositoryIndexResponse()
        async with self._gate.call("RepositoryIndex", context):
            if request.repository_name:
                raise InvalidRequestError(
                    f"repository_name: got {oip_tensors.shown(request.repository_name)}, need none: there is one",
                    field="repository_name",
                )
            models = self._registry.all()
            if request.ready:
                models = [model for model in models if self._ready and not model.failed]
            response.models.extend(oip_models.write_index(model) for model in models)
        return response

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:
        """Reads the images of a tensor. One alone fails with the call, one of several has its own outcome."""
        response = oip.ModelInferResponse()
        async with self._gate.call("ModelInfer", context) as call:
            await self._infer(request, response, call, call.caller)
        return response

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        """Reads tensors as they come; each request has its own outcome, in the order of the requests."""
        async with self._gate.call("ModelStreamInfer", context) as call:
            strict = dict(context.invocation_metadata() or ()).get(_STRICT_KEY) == "true"
            turn = f"{call.caller}#oip{next(self._stream_numbers)}"
            limits = self._config.listen

            async def infer(request: oip.ModelInferRequest) -> oip.ModelStreamInferResponse:
                return await self._infer_one(request, call, turn, strict)

            ordered = OrderedInference(infer, limits.max_stream_in_flight)
            stream = AnswerStream(
                ordered.paced(aiter(request_iterator)),
                ordered.answer,
                limits.max_stream_in_flight,
                limits.stream_idle_s,
            )
            with self._gate.stream(stream, call, context):
                async for answer in stream.answers():
                    yield answer

    async def _infer_one(
        self, request: oip.ModelInferRequest, call: Call, turn: str, strict: bool
    ) -> oip.ModelStreamInferResponse:
        """Answers one request of a stream."""
        answer = oip.ModelStreamInferResponse()
        try:
            await self._infer(request, answer.infer_response, call, turn, wait=True)
        except Exception as error:
            if strict or isinstance(error, UnauthenticatedError):
                raise  # whoever may not call any more has no further request answered
            known = as_known(error, call.request_id)
            message = f"{known.reason}: {known.message}"
            if request.id:  # tritonclient hands on nothing but the message
                message = f"[request id: {request.id[:128]}] {message}"
            answer.error_message = message
            answer.infer_response.id = request.id
        else:
            answer.infer_response.parameters["triton_final_response"].bool_param = True
        return answer

    async def _infer(
        self,
        request: oip.ModelInferRequest,
        response: oip.ModelInferResponse,
        call: Call,
        turn: str,
        *,
        wait: bool = False,
    ) -> None:
        """Reads the images of a request; ``wait`` for room in a full queue instead of failing."""
        images = oip_tensors.read_images(request, self._config.listen.max_batch_items)
        outputs = oip_tensors.read_outputs(request)
        with named_as_here():
            wishes = read_parameters(request.parameters)
            if not wait:
                call.spend(len(images))
            wanted = (request.model_name, request.model_version)
            if request.model_version:
                model = oip_models.find_model(self._registry, *wanted)
                wanted = (model.name, model.version)
            work = Work(wishes.options, wishes.priority, wanted, self._registry, call, self._metrics)
        work.turn = turn
        if wishes.timeout_s:
            work.deadline = min(work.deadline, asyncio.get_running_loop().time() + wishes.timeout_s)
        with work.model.statistics.request():
            try:
                # Here, since no deadline of gRPC's ends the call.
                async with asyncio.timeout_at(work.deadline if wishes.timeout_s else None):
                    if wait:
                        await call.await_turn(len(images))
                    outcomes = await _read_all(work, images, wait)
            except TimeoutError:
                raise DeadlineExceededError(
                    f"no answer within the timeout of {wishes.timeout_s:g} s"
                ) from None
        response.id = request.id
        oip_tensors.write_response(work.model, outputs, outcomes, response)

    def _find(self, name: str, version: str) -> ServedModel:
        try:
            return oip_models.find_model(self._registry, name, version)
        except ModelNotFoundError as error:
            error.field = "version" if error.field == "options.model_version" else "name"
            raise


async def _read_all(work: Work, images: Sequence[bytes], wait: bool) -> Sequence[oip_tensors.Outcome]:
    """Reads images. One alone raises what befell it; of several, each has its own outcome."""
    if len(images) == 1:
        return [await work.read(images[0], f"{oip_tensors.INPUT}[0]", wait=wait)]
    if not wait:
        (await work.model.pipeline()).check_room()

    async def read(index: int) -> oip_tensors.Outcome:
        try:
            # A request holds a bounded number of images, so they may wait for room in the queue.
            return await work.read(images[index], f"{oip_tensors.INPUT}[{index}]", wait=True)
        except Exception as error:
            return as_known(error, work.call.request_id)

    return await asyncio.gather(*(read(index) for index in range(len(images))))
