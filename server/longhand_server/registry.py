"""The models that a server serves: found by name and version, loaded, described."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from longhand_server.bundle import load_bundle
from longhand_server.config import ServerConfig
from longhand_server.errors import InvalidModelError, ModelNotFoundError
from longhand_server.pipeline import RecognitionPipeline
from longhand_server.recognizer import Recognizer
from longhand_server.runtime import choose_device, load_line_model

_SHIPPED = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ServedModel:
    """A model in memory.

    Attributes:
        recognizer: The model itself.
        pipeline: Its queue and workers.
        loaded_at: When it was loaded, seconds since 1970.
    """

    recognizer: Recognizer
    pipeline: RecognitionPipeline
    loaded_at: float

    @property
    def name(self) -> str:
        """Name, such as ``"en"``."""
        return self.recognizer.bundle.name

    @property
    def version(self) -> str:
        """Version, such as ``"1.0.0"``."""
        return self.recognizer.bundle.version


class ModelRegistry:
    """The models served; the first one is the default."""

    def __init__(self, models: list[ServedModel]) -> None:
        self._models = models

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none."""
        return self._models[0]

    def all(self) -> list[ServedModel]:
        """Every model, the default one first."""
        return list(self._models)

    def find(self, name: str = "", version: str = "") -> ServedModel:
        """The model of that name and version; empty = the default, and any version.

        Raises:
            ModelNotFoundError: It is not served; the message lists what is.
        """
        wanted = name or self.default.name
        for model in self._models:
            if model.name == wanted and version in ("", model.version):
                return model
        served = ", ".join(f"{model.name} {model.version}" for model in self._models)
        asked = f"{wanted} {version}".strip()
        raise ModelNotFoundError(
            f"model {asked} is not served here; there is: {served}",
            field="options.model_version" if any(m.name == wanted for m in self._models) else "options.model",
        )

    async def close(self) -> None:
        """Finishes what was accepted and ends the workers."""
        await asyncio.gather(*(model.pipeline.close() for model in self._models))


def load_recognizer(config: ServerConfig) -> Recognizer:
    """Loads the configured model.

    Raises:
        InvalidModelError: It is missing or damaged.
        ConfigurationError: The device wanted is not there.
    """
    device = choose_device(config.runtime.device)
    bundle = load_bundle(find_bundle(config.models.model))
    return Recognizer(bundle, load_line_model(bundle, device), decoder_threads=config.runtime.threads or 1)


def serve_model(recognizer: Recognizer, config: ServerConfig) -> ServedModel:
    """Gives a recogniser its queue and workers, on the running event loop."""
    pipeline = RecognitionPipeline(recognizer, config.batching, config.image, threads=config.runtime.threads)
    return ServedModel(recognizer, pipeline, time.time())


def find_bundle(model: str) -> Path:
    """The folder of a shipped model's name or of a bundle.

    Raises:
        InvalidModelError: There is no such folder.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    shipped = _SHIPPED / model
    if folder.name == model and shipped.is_dir():
        return shipped
    names = ", ".join(sorted(path.parent.name for path in _SHIPPED.glob("*/bundle.json"))) or "none"
    raise InvalidModelError(f"model {model!r}: neither a folder nor a shipped model (shipped: {names})")
