"""What Triton's service has and this one does not: each call is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from longhand.oip import inference_pb2_grpc
from longhand_server.calls import CallGate, Context
from longhand_server.errors import UnsupportedError

_MODELS = "models are loaded and unloaded by the server's operator (kill -HUP), not by clients"
_MEMORY = "shared memory is not offered; send the images in the request"
_SETTINGS = "this is set by the server's operator on its command line, not by clients"


def _refusal(method: str, reason: str) -> Callable[..., Any]:
    async def refuse(self: RefusingServicer, request: object, context: Context) -> None:
        async with self._gate.call(method, context):
            raise UnsupportedError(f"{method}: {reason}")

    return refuse


class RefusingServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The part of inference.GRPCInferenceService that is not offered.

    Args:
        gate: What every call goes through.
    """

    def __init__(self, gate: CallGate) -> None:
        self._gate = gate

    RepositoryModelLoad = _refusal("RepositoryModelLoad", _MODELS)
    RepositoryModelUnload = _refusal("RepositoryModelUnload", _MODELS)
    SystemSharedMemoryStatus = _refusal("SystemSharedMemoryStatus", _MEMORY)
    SystemSharedMemoryRegister = _refusal("SystemSharedMemoryRegister", _MEMORY)
    SystemSharedMemoryUnregister = _refusal("SystemSharedMemoryUnregister", _MEMORY)
    CudaSharedMemoryStatus = _refusal("CudaSharedMemoryStatus", _MEMORY)
    CudaSharedMemoryRegister = _refusal("CudaSharedMemoryRegister", _MEMORY)
    CudaSharedMemoryUnregister = _refusal("CudaSharedMemoryUnregister", _MEMORY)
    TraceSetting = _refusal("TraceSetting", _SETTINGS)
    LogSettings = _refusal("LogSettings", _SETTINGS)
