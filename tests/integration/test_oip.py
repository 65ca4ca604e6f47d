"""The Open Inference Protocol over a real port, through our own stubs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import struct
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from longhand.oip import inference_pb2 as oip
from longhand.oip import inference_pb2_grpc
from longhand.v1 import recognition_pb2 as pb
from longhand.v1 import recognition_pb2_grpc

if TYPE_CHECKING:
    from longhand.oip.inference_pb2_grpc import GRPCInferenceServiceAsyncStub


def request_of(*images: bytes, outputs: tuple[str, ...] = (), name: str = "toy") -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=name, id="7")
    request.inputs.add(name="image", datatype="BYTES", shape=[len(images)])
    request.raw_input_contents.append(b"".join(struct.pack("<I", len(data)) + data for data in images))
    for output in outputs:
        request.outputs.add(name=output)
    return request


def output_of(response: oip.ModelInferResponse, name: str) -> list[bytes]:
    index = [output.name for output in response.outputs].index(name)
    raw, found = response.raw_output_contents[index], []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return found


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> GRPCInferenceServiceAsyncStub:
    return inference_pb2_grpc.GRPCInferenceServiceStub(channel)


async def test_one_image_reads_as_by_our_own_service(
    inference: GRPCInferenceServiceAsyncStub, channel: grpc.aio.Channel
) -> None:
    image = draw_image("bad ace")
    response = await inference.ModelInfer(request_of(image))
    own = await recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize(
        pb.RecognizeRequest(image=image)
    )
    assert output_of(response, "text") == [own.result.text.encode()] == [b"bad ace"]
    assert struct.unpack("<f", response.raw_output_contents[1])[0] == pytest.approx(own.result.confidence)
    assert (response.id, response.model_name, response.model_version) == ("7", "toy", "1.0.0")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("text", "BYTES", [1]),
        ("confidence", "FP32", [1]),
        ("error", "BYTES", [1]),
    ]


async def test_a_bad_image_of_several_costs_only_itself(inference: GRPCInferenceServiceAsyncStub) -> None:
    request = request_of(
        draw_image("ace"), b"no image", draw_image("bed"), outputs=("json", "text", "confidence", "error")
    )
    request.parameters["include_words"].bool_param = True
    response = await inference.ModelInfer(request)
    assert output_of(response, "text") == [b"ace", b"", b"bed"]
    confidences = struct.unpack("<3f", response.raw_output_contents[2])
    assert confidences[1] == 0.0 < min(confidences[0], confidences[2])
    errors = output_of(response, "error")
    assert errors[0] == errors[2] == b""
    assert errors[1].startswith(b"INVALID_IMAGE: ")
    assert response.parameters["failed_count"].int64_param == 1
    first, second, _ = (json.loads(text) for text in output_of(response, "json"))
    assert first["text"] == "ace" == first["words"][0]["text"]
    assert first["model_version"] == "1.0.0"
    assert second["error"]["reason"] == "INVALID_IMAGE"


async def test_one_bad_image_alone_fails_with_its_status(inference: GRPCInferenceServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(request_of(b"no image"))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain, bad.field_violations[0].field) == (
        "INVALID_IMAGE",
        "longhand",
        "image[0]",
    )


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (oip.ModelInferRequest(model_name="toy"), "INVALID_ARGUMENT", "inputs: got 0 tensors"),
        (request_of(b"x", name="nix"), "NOT_FOUND", "model nix is not served here; there is: toy 1.0.0"),
        (request_of(), "INVALID_ARGUMENT", "inputs[0].shape: got [0], need [N], N from 1 to 256"),
        (request_of(*[b"x"] * 257), "INVALID_ARGUMENT", "inputs[0].shape: got [257]"),
        (request_of(b"x", outputs=("logits",)), "INVALID_ARGUMENT", "outputs[0].name: got 'logits'"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    inference: GRPCInferenceServiceAsyncStub, request_: oip.ModelInferRequest, code: str, message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelInfer(request_)
    assert caught.value.code().name == code
    assert (caught.value.details() or "").startswith(message)


async def test_what_is_not_offered_says_why(inference: GRPCInferenceServiceAsyncStub) -> None:
    calls: list[Awaitable[object]] = [
        inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest()),
        inference.RepositoryModelUnload(oip.RepositoryModelUnloadRequest()),
        inference.SystemSharedMemoryStatus(oip.SystemSharedMemoryStatusRequest()),
        inference.SystemSharedMemoryRegister(oip.SystemSharedMemoryRegisterRequest()),
        inference.SystemSharedMemoryUnregister(oip.SystemSharedMemoryUnregisterRequest()),
        inference.CudaSharedMemoryStatus(oip.CudaSharedMemoryStatusRequest()),
        inference.CudaSharedMemoryRegister(oip.CudaSharedMemoryRegisterRequest()),
        inference.CudaSharedMemoryUnregister(oip.CudaSharedMemoryUnregisterRequest()),
        inference.TraceSetting(oip.TraceSettingRequest()),
        inference.LogSettings(oip.LogSettingsRequest()),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "not offered" in (caught.value.details() or "") or "operator" in (caught.value.details() or "")


async def test_models_are_described(inference: GRPCInferenceServiceAsyncStub) -> None:
    for version in ("", "1", "1.0", "1.0.0"):
        assert (await inference.ModelReady(oip.ModelReadyRequest(name="toy", version=version))).ready
    for name, version in (("toy", "2"), ("toy", "1."), ("toy", "10"), ("nix", "")):
        assert not (await inference.ModelReady(oip.ModelReadyRequest(name=name, version=version))).ready
    metadata = await inference.ModelMetadata(oip.ModelMetadataRequest(name="toy"))
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("image", "BYTES", [-1])]
    assert [t.name for t in metadata.outputs] == ["text", "confidence", "error", "json"]
    config = (await inference.ModelConfig(oip.ModelConfigRequest(name="toy"))).config
    assert [(t.name, t.data_type) for t in config.input] == [("image", oip.TYPE_STRING)]
    index = await inference.RepositoryIndex(oip.RepositoryIndexRequest(ready=True))
    assert [(m.name, m.version, m.state) for m in index.models] == [("toy", "1.0.0", "READY")]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await inference.ModelConfig(oip.ModelConfigRequest(name="nix"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def statistics(inference: GRPCInferenceServiceAsyncStub) -> oip.ModelStatistics:
    response = await inference.ModelStatistics(oip.ModelStatisticsRequest(name="toy"))
    assert len(response.model_stats) == 1
    return response.model_stats[0]


async def test_statistics_rise_by_what_was_done(
    inference: GRPCInferenceServiceAsyncStub, channel: grpc.aio.Channel
) -> None:
    before = await statistics(inference)
    await inference.ModelInfer(request_of(*[draw_image("ace")] * 3))
    await recognition_pb2_grpc.RecognitionServiceStub(channel).Recognize(
        pb.RecognizeRequest(image=draw_image("bed"))
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await inference.ModelInfer(request_of(b"no image"))
    after = await statistics(inference)
    assert after.inference_count - before.inference_count == 4
    assert after.execution_count - before.execution_count == 4
    old, new = before.inference_stats, after.inference_stats
    assert new.success.count - old.success.count == 2
    assert new.fail.count - old.fail.count == 1
    assert new.success.ns > old.success.ns
    assert new.fail.ns > old.fail.ns
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(new, stage).count - getattr(old, stage).count == 4
        assert getattr(new, stage).ns > getattr(old, stage).ns
    assert after.last_inference >= before.last_inference > 0 or before.last_inference == 0
    (batch,) = after.batch_stats
    assert batch.batch_size == 1
    assert batch.compute_infer.count == after.execution_count


async def test_a_stream_answers_in_order_and_outlives_bad_requests(
    inference: GRPCInferenceServiceAsyncStub,
) -> None:
    texts = ["ace", "bed", "a", "cab dad", "e"] * 8

    async def requests() -> AsyncIterator[oip.ModelInferRequest]:
        for number, text in enumerate(texts):
            request = request_of(draw_image(text) if number % 5 != 3 else b"no image")
            request.id = str(number)
            yield request
        yield request_of(draw_image("ace"), b"no image")

    answers = [answer async for answer in inference.ModelStreamInfer(requests())]
    assert [answer.infer_response.id for answer in answers] == [*map(str, range(len(texts))), "7"]
    for number, answer in enumerate(answers[:-1]):
        if number % 5 == 3:
            assert answer.error_message.startswith(f"[request id: {number}] INVALID_IMAGE: ")
        else:
            assert output_of(answer.infer_response, "text") == [texts[number].encode()]
            assert answer.infer_response.parameters["triton_final_response"].bool_param
    assert not answers[-1].error_message
    assert output_of(answers[-1].infer_response, "text") == [b"ace", b""]


async def test_a_strict_stream_ends_with_the_status(inference: GRPCInferenceServiceAsyncStub) -> None:
    async def requests() -> AsyncIterator[oip.ModelInferRequest]:
        yield request_of(draw_image("ace"))
        yield request_of(b"no image")
        await asyncio.sleep(60)

    call = inference.ModelStreamInfer(requests(), metadata=(("triton_grpc_error", "true"),))
    answers = aiter(call)
    assert output_of((await anext(answers)).infer_response, "text") == [b"ace"]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(answers)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_tokens_and_rates_hold_here_as_well(toy_bundle: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"archive {hashlib.sha256(b'secret').hexdigest()} 2\n")
    with ServerProcess(toy_bundle, tmp_path, "--token-file", str(tokens)) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
            calls: tuple[Awaitable[object], ...] = (
                stub.ModelInfer(request_of(draw_image("ace"))),
                stub.ModelMetadata(oip.ModelMetadataRequest(name="toy")),
                stub.ModelStatistics(oip.ModelStatisticsRequest()),
            )
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            bearer = (("authorization", "Bearer secret"),)
            await stub.ModelInfer(request_of(*[draw_image("ace")] * 40), metadata=bearer)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request_of(*[draw_image("ace")] * 40), metadata=bearer)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_follows_a_drain_and_nothing_is_lost(toy_bundle: Path, tmp_path: Path) -> None:
    with ServerProcess(toy_bundle, tmp_path, "--drain-delay-s", "2") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            sent = asyncio.Event()

            async def requests() -> AsyncIterator[oip.ModelInferRequest]:
                yield request_of(draw_image("ace"))
                sent.set()
                await asyncio.sleep(60)

            stream = aiter(stub.ModelStreamInfer(requests()))
            first = await anext(stream)
            assert output_of(first.infer_response, "text") == [b"ace"]
            server.process.send_signal(signal.SIGTERM)
            while (await stub.ServerReady(oip.ServerReadyRequest())).ready:
                await asyncio.sleep(0.02)
            assert (await stub.ServerLive(oip.ServerLiveRequest())).live
            assert not (await stub.ModelReady(oip.ModelReadyRequest(name="toy"))).ready
            # Until the delay is over requests are still answered.
            response = await stub.ModelInfer(request_of(draw_image("bed")))
            assert output_of(response, "text") == [b"bed"]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.stop() == 0
