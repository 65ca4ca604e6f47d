"""Loading, replacing and forgetting models, with pipelines that do nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.toy_model import write_bundle
from longhand.v1 import recognition_pb2 as pb
from longhand_decoder import BeamSearchOptions
from longhand_server.bundle import ModelBundle, load_bundle
from longhand_server.config import ModelsConfig, ServerConfig
from longhand_server.errors import InvalidModelError, ModelNotFoundError, ShuttingDownError
from longhand_server.messages import write_model
from longhand_server.metrics import Metrics
from longhand_server.registry import LoadedModel, ModelRegistry, ServedModel, find_bundles, version_key


class Pipeline:
    """Stands for a model's queue and workers."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Model(ServedModel):
    """Loads slowly, or until it is told, and fails where its version says so."""

    loads = 0
    may_finish: asyncio.Event | None = None

    def __init__(self, bundle: ModelBundle, config: ServerConfig, metrics: Metrics) -> None:
        super().__init__(bundle, config, "cpu", metrics)
        self.made: Pipeline | None = None

    async def _make_pipeline(self) -> Any:
        type(self).loads += 1
        await (self.may_finish.wait() if self.may_finish else asyncio.sleep(0.05))
        if self.version == "bad":
            raise InvalidModelError("damaged")
        if self.version == "huge":
            raise MemoryError
        self.made = Pipeline(waiting=3)
        return self.made, LoadedModel("cpu", "nothing", BeamSearchOptions(), 0.0)


def registry_of(folder: Path, metrics: Metrics, **settings: Any) -> ModelRegistry:
    config = ServerConfig(models=ModelsConfig(models=str(folder), **settings))
    return ModelRegistry(config, metrics, lambda bundle: Model(bundle, config, metrics))


def queued(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("longhand_queue_images", {"model": "toy"})


async def test_callers_without_patience_share_one_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_finish = asyncio.Event()
    monkeypatch.setattr(Model, "may_finish", may_finish)
    write_bundle(tmp_path / "a", name="toy")
    registry = registry_of(tmp_path, Metrics(), model="toy")
    Model.loads = 0
    model = registry.default
    for _ in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await model.pipeline()
    may_finish.set()
    await model.pipeline()
    assert Model.loads == 1


async def test_a_failed_loading_is_tried_again(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", name="toy", version="bad")
    registry = registry_of(tmp_path, Metrics(), model="toy")
    Model.loads = 0
    for _ in range(2):
        with pytest.raises(InvalidModelError, match="damaged"):
            await registry.load()
        assert registry.default.failed
    assert Model.loads == 2
    registry.default.bundle = replace(registry.default.bundle, version="mended")
    await registry.load()
    assert not registry.default.failed
    await registry.close()


async def test_a_model_that_was_replaced_before_it_was_loaded_stays_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", name="toy")
    model = registry_of(tmp_path, Metrics(), model="toy").default
    await model.close()
    with pytest.raises(ShuttingDownError, match="replaced"):
        await model.pipeline()


@pytest.mark.parametrize(("version", "error"), [("bad", InvalidModelError), ("huge", MemoryError)])
async def test_a_failed_reload_leaves_everything_as_it_was(
    tmp_path: Path, version: str, error: type[Exception]
) -> None:
    metrics = Metrics()
    write_bundle(tmp_path / "a", name="toy", version="1")
    registry = registry_of(tmp_path, metrics, model="toy")
    await registry.load()
    old = registry.default
    write_bundle(tmp_path / "a", name="toy", version="2")
    write_bundle(tmp_path / "b", name="zoo", version=version)
    made: list[Model] = []

    def make(bundle: ModelBundle) -> Model:
        made.append(Model(bundle, registry._config, metrics))
        return made[-1]

    registry._make_model = make
    with pytest.raises(error):
        await registry.reload()
    assert registry.all() == [old]
    assert queued(metrics) == 3
    assert [model.made.closed for model in made if model.made] == [True]


@pytest.mark.parametrize("place", ["link", "folder", "models"])
async def test_a_folder_that_cannot_be_looked_into_is_not_taken_for_removed(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "kept" / "b", name="b")
    models = tmp_path / "models"
    write_bundle(models / "a", name="a")
    (models / "lost+found").mkdir()
    (models / "b").symlink_to(tmp_path / "kept" / "b")
    registry = registry_of(models, Metrics(), model="a")
    await registry.load()
    closed = {"link": models / "b", "folder": models / "a", "models": models}[place]
    if place == "link":
        (tmp_path / "kept").rename(tmp_path / "elsewhere")
    iterdir = Path.iterdir

    def closed_iterdir(folder: Path) -> Iterator[Path]:  # root may look into everything
        if folder == closed or folder.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", closed_iterdir)
    reason = "No such file or directory" if place == "link" else "Permission denied"
    with pytest.raises(InvalidModelError, match=f"^models: {closed}: {reason}$"):
        await registry.reload()
    assert [model.name for model in registry.all()] == ["a", "b"]


def test_the_working_folder_is_no_model_of_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where LONGHAND_MODEL is set to nothing."""
    monkeypatch.chdir(write_bundle(tmp_path))
    with pytest.raises(
        InvalidModelError, match=r"^model '': neither a folder nor a shipped model \(shipped: en\)"
    ):
        find_bundles(ServerConfig(models=ModelsConfig(model="")))
    assert find_bundles(ServerConfig(models=ModelsConfig(model=".")))


async def test_a_model_that_was_replaced_is_forgotten(tmp_path: Path) -> None:
    metrics = Metrics()
    write_bundle(tmp_path / "a", name="toy", version="1")
    registry = registry_of(tmp_path, metrics, model="toy")
    await registry.load()
    old = weakref.ref(registry.default)
    write_bundle(tmp_path / "a", name="toy", version="2")
    await registry.reload()
    await asyncio.sleep(0.01)
    gc.collect()
    assert old() is None
    assert queued(metrics) == 3


def test_versions_are_ordered_whatever_they_hold() -> None:
    assert version_key("1.10") > version_key("1.9")
    assert version_key("1.10") > version_key("1") > version_key("1-rc2") > version_key("1-rc1")
    assert sorted(["2", "1.1", "1.\u00b2"], key=version_key) == ["1.\u00b2", "1.1", "2"]


async def test_without_a_version_the_newest_is_meant_and_without_a_name_the_default(tmp_path: Path) -> None:
    write_bundle(tmp_path / "old", name="toy", version="1")
    for version in ("2", "3-rc1", "3"):
        write_bundle(tmp_path / "all" / version, name="toy", version=version)
    registry = registry_of(tmp_path / "all", Metrics(), model=str(tmp_path / "old"))
    assert registry.find().version == "1"
    assert registry.find("toy").version == "3"
    assert registry.find(version="2").version == "2"


def test_a_default_model_from_the_folder_of_models_is_there_once(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", name="toy", version="1")
    write_bundle(tmp_path / "b", name="toy", version="2")
    (tmp_path / ".new").mkdir()
    (tmp_path / ".new" / "bundle.json").write_text("{")  # still being written
    registry = registry_of(tmp_path, Metrics(), model=str(tmp_path / "a"))
    assert [model.version for model in registry.all()] == ["1", "2"]


def test_a_folder_called_as_a_shipped_model_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "en").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_bundles(ServerConfig())[0].name == "en"
    with pytest.raises(InvalidModelError, match=r"en/bundle\.json: No such file"):
        find_bundles(ServerConfig(models=ModelsConfig(model="./en/")))


async def test_what_changes_while_it_is_read_is_found_by_the_next_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "a", name="toy", version="1")
    registry = registry_of(tmp_path, Metrics(), model="toy")

    def load_and_change(folder: Path) -> ModelBundle:
        bundle = load_bundle(folder)
        write_bundle(folder, name="toy", version="3")
        return bundle

    write_bundle(tmp_path / "a", name="toy", version="2")
    monkeypatch.setattr("longhand_server.registry.load_bundle", load_and_change)
    await registry.reload()
    assert registry.default.version == "2"
    monkeypatch.undo()
    await registry.reload()
    assert registry.default.version == "3"


def test_a_model_that_is_not_there_is_told_in_few_words(tmp_path: Path) -> None:
    for number in range(120):
        write_bundle(tmp_path / str(number), name=f"model-with-a-long-name-{number:03}")
    registry = registry_of(tmp_path, Metrics(), model="model-with-a-long-name-000")
    with pytest.raises(ModelNotFoundError, match=r"and 100 more$") as caught:
        registry.find("none")
    assert len(str(caught.value)) < 1_000
    assert registry.listed().startswith("model-with-a-long-name-000 1.0.0, ")


@pytest.mark.parametrize("name", ["\0", "\ud800"])
def test_file_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "a", name="toy")
    manifest = folder / "bundle.json"
    content = json.loads(manifest.read_text())
    next(iter(content["files"].values()))["path"] = name
    manifest.write_text(json.dumps(content))
    with pytest.raises(InvalidModelError):
        registry_of(tmp_path, Metrics(), model="toy")


@pytest.mark.parametrize("key", ["version", "description", "alphabet"])
def test_text_that_no_answer_could_hold_is_refused_before_it_is_served(tmp_path: Path, key: str) -> None:
    manifest = write_bundle(tmp_path / "a", name="toy") / "bundle.json"
    content = json.loads(manifest.read_text())
    content[key] = "\ud800" + content[key][1:]
    manifest.write_text(json.dumps(content))
    with pytest.raises(InvalidModelError, match=r"not valid JSON: 'utf-8' codec can't encode"):
        registry_of(tmp_path, Metrics(), model="toy")


async def test_a_model_says_that_it_is_being_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_finish = asyncio.Event()
    monkeypatch.setattr(Model, "may_finish", may_finish)
    write_bundle(tmp_path / "a", name="en")
    registry = registry_of(tmp_path, Metrics(), model="en")
    model = registry.default
    states = [write_model(model, is_default=True).state]
    loading = asyncio.create_task(registry.load())
    await asyncio.sleep(0)
    states.append(write_model(model, is_default=True).state)
    may_finish.set()
    await loading
    states.append(write_model(model, is_default=True).state)
    await registry.close()
    assert states == [pb.MODEL_STATE_UNLOADED, pb.MODEL_STATE_LOADING, pb.MODEL_STATE_READY]
