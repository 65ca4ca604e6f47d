"""The deployment that reads prepared lines, on its own replicas, and the way there."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from longhand_server.config import ServerConfig
from longhand_server.errors import LonghandError, OverloadedError, ShuttingDownError
from longhand_server.image import LineImage
from longhand_server.metrics import Metrics
from longhand_server.options import RecognitionOptions
from longhand_server.recognizer import Transcription
from longhand_server.registry import LoadedModel, ModelRegistry

# How often a line is given to another replica because the one that had it died.
_ATTEMPTS = 4
_RETRY_S = 0.2
# The line that a health check reads goes before everything else, px.
_TRIAL_WIDTH, _TRIAL_PRIORITY = 64, 1_000_000


def with_own_threads(config: ServerConfig) -> ServerConfig:
    """The settings with as many threads as Ray gave this replica CPUs, where they name no number."""
    if config.runtime.threads:
        return config
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
    return replace(config, runtime=replace(config.runtime, threads=max(int(cpus), 1)))


class Recognition:
    """Network and beam search; the queue and batches are the plain server's own.

    Args:
        config: The settings.

    Raises:
        InvalidModelError: A model cannot be loaded.
    """

    async def __init__(self, config: ServerConfig) -> None:  # type: ignore[misc]  # Ray awaits it
        self._registry = ModelRegistry(with_own_threads(config), Metrics())
        await self._registry.load()

    async def describe(self, name: str, version: str) -> LoadedModel:
        """What is known of a model; loads it if need be.

        Raises:
            ModelNotFoundError: No such model.
            InvalidModelError: It cannot be loaded.
        """
        model = self._registry.find(name, version)
        await model.pipeline()
        assert model.loaded is not None
        return model.loaded

    async def read(
        self,
        name: str,
        version: str,
        line: LineImage,
        options: RecognitionOptions,
        priority: int,
        caller: str,
    ) -> Transcription:
        """Reads a prepared line.

        Raises:
            LonghandError: As :meth:`longhand_server.pipeline.RecognitionPipeline.recognize` says.
        """
        pipeline = await self._registry.find(name, version).pipeline()
        return await pipeline.recognize(line, options, priority=priority, caller=caller, wait=True)

    async def check_health(self) -> None:
        """Reads an empty line, through queue, network and beam search. Ray replaces a replica that fails."""
        model = self._registry.default
        pixels = np.zeros((model.bundle.line.height, _TRIAL_WIDTH), np.float32)
        line = LineImage(pixels, _TRIAL_WIDTH, model.bundle.line.height, 0.0, 1.0, is_blank=False)
        await (await model.pipeline()).recognize(
            line, RecognitionOptions(), priority=_TRIAL_PRIORITY, wait=True
        )


class RecognitionHandle:
    """The way to the replicas of :class:`Recognition`; a line whose replica dies is given to another one.

    Args:
        handle: Ray's handle.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def describe(self, name: str, version: str) -> LoadedModel:
        """See :meth:`Recognition.describe`."""
        loaded: LoadedModel = await self._ask("describe", name, version)
        return loaded

    async def read(
        self,
        name: str,
        version: str,
        line: LineImage,
        options: RecognitionOptions,
        priority: int,
        caller: str,
    ) -> Transcription:
        """See :meth:`Recognition.read`."""
        result: Transcription = await self._ask("read", name, version, line, options, priority, caller)
        return result

    async def _ask(self, method: str, *arguments: object) -> Any:
        """Calls a replica.

        Raises:
            LonghandError: What the replica raised; ShuttingDownError where replicas keep dying.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_RETRY_S * attempt)
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except RayTaskError as error:
                if isinstance(error.cause, LonghandError):
                    raise error.cause from None
                raise
            except BackPressureError as error:
                raise OverloadedError(str(error), retry_after_ms=1000) from error
            except (RayActorError, DeploymentUnavailableError) as error:
                died = error
        raise ShuttingDownError(
            f"{_ATTEMPTS} replicas in a row went away before they had read the image"
        ) from died
