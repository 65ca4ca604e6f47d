"""What Triton's service has and this one does not: each call is refused with the reason."""

from __future__ import annotations

from longhand.oip import inference_pb2 as oip
from longhand.oip import inference_pb2_grpc
from longhand_server.calls import CallGate, Context
from longhand_server.errors import UnsupportedError

_MODELS = "models are loaded and unloaded by the server's operator (kill -HUP), not by clients"
_MEMORY = "shared memory is not offered; send the images in the request"
_SETTINGS = "this is set by the server's operator on its command line, not by clients"


class RefusingServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """The part of inference.GRPCInferenceService that is not offered.

    Args:
        gate: What every call goes through.
    """

    def __init__(self, gate: CallGate) -> None:
        self._gate = gate

    async def _refuse(self, method: str, reason: str, context: Context) -> None:
        async with self._gate.call(method, context):
            raise UnsupportedError(f"{method}: {reason}")

    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        """Refuses."""
        await self._refuse("RepositoryModelLoad", _MODELS, context)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        """Refuses."""
        await self._refuse("RepositoryModelUnload", _MODELS, context)
        return oip.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(
        self, request: oip.SystemSharedMemoryStatusRequest, context: Context
    ) -> oip.SystemSharedMemoryStatusResponse:
        """Refuses."""
        await self._refuse("SystemSharedMemoryStatus", _MEMORY, context)
        return oip.SystemSharedMemoryStatusResponse()

    async def SystemSharedMemoryRegister(
        self, request: oip.SystemSharedMemoryRegisterRequest, context: Context
    ) -> oip.SystemSharedMemoryRegisterResponse:
        """Refuses."""
        await self._refuse("SystemSharedMemoryRegister", _MEMORY, context)
        return oip.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: oip.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> oip.SystemSharedMemoryUnregisterResponse:
        """Refuses."""
        await self._refuse("SystemSharedMemoryUnregister", _MEMORY, context)
        return oip.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: oip.CudaSharedMemoryStatusRequest, context: Context
    ) -> oip.CudaSharedMemoryStatusResponse:
        """Refuses."""
        await self._refuse("CudaSharedMemoryStatus", _MEMORY, context)
        return oip.CudaSharedMemoryStatusResponse()

    async def CudaSharedMemoryRegister(
        self, request: oip.CudaSharedMemoryRegisterRequest, context: Context
    ) -> oip.CudaSharedMemoryRegisterResponse:
        """Refuses."""
        await self._refuse("CudaSharedMemoryRegister", _MEMORY, context)
        return oip.CudaSharedMemoryRegisterResponse()

    async def CudaSharedMemoryUnregister(
        self, request: oip.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> oip.CudaSharedMemoryUnregisterResponse:
        """Refuses."""
        await self._refuse("CudaSharedMemoryUnregister", _MEMORY, context)
        return oip.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(
        self, request: oip.TraceSettingRequest, context: Context
    ) -> oip.TraceSettingResponse:
        """Refuses."""
        await self._refuse("TraceSetting", _SETTINGS, context)
        return oip.TraceSettingResponse()

    async def LogSettings(self, request: oip.LogSettingsRequest, context: Context) -> oip.LogSettingsResponse:
        """Refuses."""
        await self._refuse("LogSettings", _SETTINGS, context)
        return oip.LogSettingsResponse()
