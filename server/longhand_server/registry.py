"""The models that a server serves: found on disk, loaded, replaced while it runs."""

from __future__ import annotations

import asyncio
import logging
import re
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from longhand_decoder import BeamSearchOptions
from longhand_server.bundle import MANIFEST, ModelBundle, load_bundle
from longhand_server.config import ServerConfig
from longhand_server.errors import InvalidModelError, ModelNotFoundError, ShuttingDownError
from longhand_server.metrics import Metrics
from longhand_server.pipeline import RecognitionPipeline, make_pipeline
from longhand_server.recognizer import Recognizer, Transcription
from longhand_server.runtime import choose_device, gpu_memory, load_line_model
from longhand_server.statistics import ModelStatistics
from longhand_server.workers import call_in_thread

_LOG = logging.getLogger(__name__)
# Characters of a name that nobody serves which are told back, and models that are listed: errors travel as metadata,
# and what a worker says at its start as one line, which are bounded.
_MAX_SHOWN, _MOST_LISTED = 100, 20
_SHIPPED = Path(__file__).parent / "models"


@dataclass(frozen=True)
class LoadedModel:
    """What is known of a model once it is in memory.

    Attributes:
        device: Where its network runs, such as ``"cpu"``.
        runtime: The library that computes, for people.
        defaults: The settings of the beam search where a request asks for no others.
        at: When it was loaded, seconds since 1970.
    """

    device: str
    runtime: str
    defaults: BeamSearchOptions
    at: float


class ServedModel:
    """A model that requests may name; in memory, or loaded by the first of them.

    Attributes:
        bundle: The model on disk, checked.
        loaded: What is known of it in memory; None until it is loaded.
        failed: Whether loading it went wrong.
        statistics: What it has done.
    """

    def __init__(self, bundle: ModelBundle, config: ServerConfig, device: str, metrics: Metrics) -> None:
        self.bundle = bundle
        self.loaded: LoadedModel | None = None
        self.failed = False
        self.statistics = ModelStatistics()
        self._config = config
        self._device = device
        self._metrics = metrics
        self._pipeline: RecognitionPipeline | None = None
        self._loading: asyncio.Task[RecognitionPipeline] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """Name, such as ``"en"``."""
        return self.bundle.name

    @property
    def version(self) -> str:
        """Version, such as ``"1.0.0"``."""
        return self.bundle.version

    @property
    def loading(self) -> bool:
        """Whether it is on its way into memory."""
        return self._loading is not None

    async def pipeline(self) -> RecognitionPipeline:
        """The model's queue and workers; loads the model if need be.

        Raises:
            InvalidModelError: It cannot be loaded.
            ShuttingDownError: It was closed before it was loaded.
        """
        if self._pipeline is None:
            if self._closed:
                raise ShuttingDownError("the model has been replaced")
            if self._loading is None:
                self._loading = asyncio.get_running_loop().create_task(self._load())
                self._loading.add_done_callback(self._end_loading)
            # Whoever gives up does not take the loading with it: others wait, or will come.
            await asyncio.shield(self._loading)
        assert self._pipeline is not None
        return self._pipeline

    def _end_loading(self, loading: asyncio.Task[RecognitionPipeline]) -> None:
        self._loading = None
        if not loading.cancelled():
            loading.exception()  # looked at, also where all who waited have gone; the next one tries again

    async def close(self) -> None:
        """Finishes what was accepted and ends the workers."""
        self._closed = True
        if self._loading is not None:
            await asyncio.wait([self._loading])
        if self._pipeline is not None:
            await self._pipeline.close()
            self._metrics.unwatch_queue(self)

    async def _load(self) -> RecognitionPipeline:
        begun = time.perf_counter()
        try:
            self._pipeline, self.loaded = await self._make_pipeline()
        except Exception:
            self.failed = True
            raise
        self.failed = False
        pipeline = self._pipeline
        self._metrics.watch_queue(self, self.name, lambda: pipeline.waiting)
        seconds = time.perf_counter() - begun
        _LOG.info("loaded model %s %s on %s in %.1f s", self.name, self.version, self.loaded.device, seconds)
        return pipeline

    async def _make_pipeline(self) -> tuple[RecognitionPipeline, LoadedModel]:
        recognizer = await call_in_thread(self._load_now)
        pipeline = make_pipeline(
            recognizer,
            self._config.batching,
            self._config.image,
            threads=self._config.runtime.threads,
            on_batch=self._batch_started,
        )
        if self._device != "cpu":
            self._metrics.watch_gpu(self._device, lambda: gpu_memory(self._device))
        line_model = recognizer.line_model
        return pipeline, LoadedModel(line_model.device, line_model.runtime, recognizer.defaults, time.time())

    def _batch_started(self, widths: Sequence[int]) -> None:
        self._metrics.batch_started(self.name, widths)
        self.statistics.batch_started(len(widths))

    def _load_now(self) -> Recognizer:
        runtime = self._config.runtime
        # Beam search threads serve whole batches, which only a GPU has.
        threads = 1 if self._device == "cpu" else runtime.threads or 4
        line_model = load_line_model(self.bundle, self._device, runtime.precision)
        return Recognizer(self.bundle, line_model, decoder_threads=threads, second_look=runtime.second_look)


class Reading(NamedTuple):
    """What was read from an image, and the model that read it."""

    result: Transcription
    model: ServedModel


class ModelRegistry:
    """The models served; the first one is the default.

    Args:
        config: Which models, on what device.
        metrics: Sees their queues and batches.
        make_model: Makes a served model of a bundle; by default one that runs in this process.

    Raises:
        InvalidModelError: A bundle is missing or damaged.
        ConfigurationError: The device is not there.
    """

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        make_model: Callable[[ModelBundle], ServedModel] | None = None,
    ) -> None:
        self._config = config
        self.device = choose_device(config.runtime.device)
        self._make_model = make_model or (lambda bundle: ServedModel(bundle, config, self.device, metrics))
        self._models = [self._make_model(bundle) for bundle in find_bundles(config)]
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def default(self) -> ServedModel:
        """The model of requests that name none."""
        return self._models[0]

    def all(self) -> list[ServedModel]:
        """Every model, the default one first."""
        return list(self._models)

    def listed(self) -> str:
        """Names and versions of the models for people, of very many only the first."""
        names = ", ".join(f"{model.name} {model.version}" for model in self._models[:_MOST_LISTED])
        more = len(self._models) - _MOST_LISTED
        return f"{names} and {more} more" if more > 0 else names

    def find(self, name: str = "", version: str = "") -> ServedModel:
        """The model of that name and version; without a version the newest, without a name the default one.

        Raises:
            ModelNotFoundError: It is not served; the message lists what is.
        """
        wanted = name or self.default.name
        found = [m for m in self._models if m.name == wanted and version in ("", m.version)]
        if found:
            return found[0] if not name else max(found, key=lambda model: version_key(model.version))
        asked = f"{wanted[:_MAX_SHOWN]} {version[:_MAX_SHOWN]}".strip()
        raise ModelNotFoundError(
            f"model {asked} is not served here; there is: {self.listed()}",
            field="options.model_version" if any(m.name == wanted for m in self._models) else "options.model",
        )

    async def load(self) -> None:
        """Loads every model into memory, the default one alone where loading is lazy.

        Raises:
            InvalidModelError: One of them cannot be loaded.
        """
        await self._load(self._models)

    async def _load(self, models: Sequence[ServedModel]) -> None:
        for model in models[:1] if self._config.models.lazy else models:
            await model.pipeline()

    async def reload(self) -> None:
        """Looks for models again: new and changed ones are loaded, then take over; the old ones drain.

        If anything is wrong everything stays as it was.

        Raises:
            InvalidModelError: A bundle is missing or damaged.
        """
        bundles = await call_in_thread(find_bundles, self._config)
        known = {_identity(model.bundle): model for model in self._models}
        models = [known.get(_identity(bundle)) or self._make_model(bundle) for bundle in bundles]
        try:
            await self._load(models)
        except BaseException:
            for model in models:
                if model not in self._models:
                    await model.close()
            raise
        old = [model for model in self._models if model not in models]
        self._models = models
        for model in old:
            _LOG.info("model %s %s drains", model.name, model.version)
            task = asyncio.get_running_loop().create_task(model.close())
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)

    async def close(self) -> None:
        """Finishes what was accepted and ends the workers."""
        await asyncio.gather(*(model.close() for model in self._models), *self._draining)


def find_bundles(config: ServerConfig) -> list[ModelBundle]:
    """The bundles to serve: the default one, then the others by name, the newest version first.

    Raises:
        InvalidModelError: One is missing or damaged, or two have the same name and version.
    """
    folder = Path(config.models.models) if config.models.models else None
    others: list[ModelBundle] = []
    if folder is not None:
        found = _bundle_folders(folder)
        others = [load_bundle(path) for path in found]
        if not found:
            _LOG.warning("models: none in %s, where each would be a subfolder with a %s", folder, MANIFEST)
    named = [bundle for bundle in others if bundle.name == config.models.model]
    if named:
        default = max(named, key=lambda bundle: version_key(bundle.version))
    else:
        default = load_bundle(_default_folder(config.models.model))
    rest = [bundle for bundle in others if not bundle.directory.samefile(default.directory)]
    rest.sort(key=lambda bundle: version_key(bundle.version), reverse=True)
    rest.sort(key=lambda bundle: bundle.name)
    return _distinct([default, *rest])


def _bundle_folders(folder: Path) -> list[Path]:
    """The subfolders that hold bundles, by name.

    Raises:
        InvalidModelError: There is no such folder, or it cannot be told what it holds: ``Path.glob`` would leave out
            what is closed, and links that lead nowhere, so that a reload would take served models for removed.
    """
    if not folder.is_dir():
        raise InvalidModelError(f"models: {folder} is no folder")
    try:
        return [
            path
            for path in sorted(folder.iterdir())
            # Hidden folders are where new bundles are put together; the other one is a file system's own.
            if path.name[0] != "." and path.name != "lost+found"
            if stat.S_ISDIR(path.stat().st_mode) and path / MANIFEST in path.iterdir()
        ]
    except OSError as error:
        raise InvalidModelError(f"models: {error.filename}: {error.strerror}") from error


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Orders versions as people do: 1.10 after 1.9, 2.0-rc1 before 2.0."""
    parts = re.findall(r"\d+|[^\d.]+", version)
    return (*((2, int(part)) if part.isdecimal() else (0, part) for part in parts), (1, ""))


def _distinct(bundles: Sequence[ModelBundle]) -> list[ModelBundle]:
    seen: dict[tuple[str, str], ModelBundle] = {}
    for bundle in bundles:
        first = seen.setdefault((bundle.name, bundle.version), bundle)
        if first is not bundle:
            raise InvalidModelError(
                f"model {bundle.name} {bundle.version} stands in {first.directory} and in {bundle.directory}"
            )
    return list(bundles)


def _identity(bundle: ModelBundle) -> tuple[Path, bytes]:
    return bundle.directory, bundle.digest


def _default_folder(model: str) -> Path:
    folder = Path(model)
    shipped = _SHIPPED / model
    # A folder of pictures may well be called "en"; ./en is a folder in any case.
    if folder.name == model and (shipped / MANIFEST).is_file():
        return shipped
    if model and folder.is_dir():  # "" would be the working folder
        return folder
    names = ", ".join(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{MANIFEST}"))) or "none"
    raise InvalidModelError(f"model {model!r}: neither a folder nor a shipped model (shipped: {names})")
