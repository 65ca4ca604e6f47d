"""What a user of tritonclient does, run by an interpreter that has it: prints what came back as JSON.

python tritonclient_session.py session ADDRESS IMAGE
python tritonclient_session.py descriptors
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException


def tensor(*images: bytes) -> list[Any]:
    """The input that holds these images."""
    found = triton.InferInput("image", [len(images)], "BYTES")
    found.set_data_from_numpy(np.array(images, dtype=np.object_))
    return [found]


def texts(result: Any, name: str = "text") -> list[str]:
    """A BYTES output."""
    return [value.decode() for value in result.as_numpy(name)]


def session(address: str, image: bytes) -> dict[str, Any]:
    """Health, metadata, configuration, inference in every way, statistics."""
    client = triton.InferenceServerClient(address)
    found: dict[str, Any] = {
        "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("toy")],
        "missing": client.is_model_ready("nix"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata("toy", as_json=True),
        "config": client.get_model_config("toy", as_json=True)["config"],
        "index": client.get_model_repository_index(as_json=True),
        "before": client.get_inference_statistics("toy", as_json=True)["model_stats"][0],
    }
    result = client.infer("toy", tensor(image), request_id="one")
    found["infer"] = [texts(result), float(result.as_numpy("confidence")[0]), result.get_response().id]
    outputs = [triton.InferRequestedOutput(name) for name in ("json", "text", "error")]
    result = client.infer("toy", tensor(image, b"no image"), outputs=outputs, priority=1, timeout=60_000_000)
    found["batch"] = {name: texts(result, name) for name in ("json", "text", "error")}
    try:
        client.infer("toy", tensor(b"no image"))
    except InferenceServerException as error:
        found["refused"] = [error.status(), error.message()]
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(4):
        client.async_infer("toy", tensor(image), lambda result, error: answers.put((result, error)))
    found["async"] = [texts(answers.get(timeout=30)[0]) for _ in range(4)]
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(6):
        client.async_stream_infer(
            "toy", tensor(image if number != 3 else b"no image"), request_id=str(number)
        )
    client.stop_stream()
    found["stream"] = [
        error.message() if error else [result.get_response().id, *texts(result)]
        for result, error in (answers.get(timeout=30) for _ in range(6))
    ]
    found["after"] = client.get_inference_statistics("toy", as_json=True)["model_stats"][0]
    return found


def descriptors() -> list[str]:
    """tritonclient's own description of the protocol, as serialised descriptors in hexadecimal."""
    files = []
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file.SerializeToString().hex())
    return files


if __name__ == "__main__":
    if sys.argv[1] == "session":
        print(json.dumps(session(sys.argv[2], Path(sys.argv[3]).read_bytes())))
    else:
        print(json.dumps(descriptors()))
