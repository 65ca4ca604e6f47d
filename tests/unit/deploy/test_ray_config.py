"""Configurations for Ray Serve: the shipped ones pass, wrong ones are told what is wrong."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from longhand_server.errors import ConfigurationError
from longhand_server.ray_config import application_config, check_file, check_serve_config

FOLDER = Path(__file__).parents[3] / "server" / "deploy" / "ray"
SHIPPED = sorted(FOLDER.glob("*.yaml"))
# Ray itself uses what pydantic will drop one day.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
OPEN = {"security": {"insecure": True}}


def test_settings_of_the_server_and_of_ray() -> None:
    config, on_ray = application_config(
        OPEN | {"batching": {"max_queue": 7}, "image": {"max_side": 99}, "ray": {"in_flight": 3}}
    )
    assert (config.batching.max_queue, config.image.max_side, on_ray.in_flight) == (7, 99, 3)
    assert application_config(OPEN)[1].in_flight == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Ray's proxies listen on every interface"),
        (OPEN | {"batchin": {}}, "args: unknown section 'batchin', need one of batching"),
        (OPEN | {"batching": {"queue": 1}}, r"args: unknown key 'queue' in \[batching\], need one of"),
        (OPEN | {"batching": {"max_queue": 0}}, r"args: \[batching\] max_queue: got 0, need 1 to"),
        (OPEN | {"batching": {"max_queue": "8"}}, r"args: \[batching\] max_queue: got '8', need an integer"),
        (OPEN | {"batching": 8}, r"\[batching\] must hold keys, got 8"),
        (OPEN | {"ray": {"in_flights": 8}}, r"unknown key 'in_flights' in \[ray\], need one of in_flight"),
        (OPEN | {"ray": {"in_flight": 0}}, r"\[ray\] in_flight: got 0, need 1 to 100000"),
        (OPEN | {"listen": {"port": 1}}, r"\[listen\] port: on Ray Serve set by grpc_options.port"),
    ],
)
def test_wrong_arguments_name_key_value_and_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        application_config(arguments)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_are_right(path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here: make test-scale brings it")
    assert check_file(path) == []


def change(tree: dict[str, Any], keys: str, value: object) -> dict[str, Any]:
    """A copy with another value at `a.0.b`."""
    tree = copy.deepcopy(tree)
    place: Any = tree
    *path, last = (int(key) if key.isdigit() else key for key in keys.split("."))
    for key in path:
        place = place[key]
    place[last] = value
    return tree


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("grpc_option", {}, "grpc_option: unknown key, need one of applications,"),
        ("grpc_options.prot", 1, "grpc_options.prot: unknown key, need one of"),
        ("grpc_options.port", "many", "grpc_options.port: got 'many': Input should be a valid integer"),
        ("grpc_options.grpc_servicer_functions", [], "need longhand_server.ray_proxy.add_services"),
        ("applications.0.import_path", "a:b", "applications[0].import_path: got 'a:b', need"),
        ("applications.0.deployments.0.name", "Gate", "deployments[0].name: got 'Gate', need one of Gateway"),
        ("applications.0.deployments.0.num_replica", 2, "deployments[0].num_replica: unknown key"),
        ("applications.0.deployments.1.max_ongoing_requests", 0, "max_ongoing_requests: got 0: "),
        ("applications.0.deployments.1.ray_actor_options", {"num_gpus": -1}, "num_gpus"),
        (
            "applications.0.deployments.1.ray_actor_options",
            {"num_gpu": 1},
            "ray_actor_options.num_gpu: unknown key",
        ),
        (
            "applications.0.deployments.1.autoscaling_config",
            {"min_replica": 1},
            "deployments[1].autoscaling_config.min_replica: unknown key, need one of",
        ),
        (
            "applications.0.deployments.1.autoscaling_config",
            {"max_replicas": 0},
            "deployments[1].autoscaling_config.max_replicas: got 0: Input should be greater than 0",
        ),
        ("applications.0.args", {"security": {"insecure": "no"}}, "insecure: got 'no', need true or false"),
    ],
)
def test_wrong_configurations_say_where(keys: str, value: object, message: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here: make test-scale brings it")
    tree = change(yaml.safe_load((FOLDER / "longhand.yaml").read_text()), keys, value)
    problems = check_serve_config(tree)
    assert any(message in problem for problem in problems), problems


def test_without_ray_it_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['ray'] = None; from longhand_server.ray_config import *; "
    checked = f"{blocked} sys.argv[1:] = [{str(SHIPPED[0])!r}]; sys.exit(main())"
    outcome = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert "pip install '.[ray]' in Longhand's folder" in outcome.stderr
    started = subprocess.run(
        [sys.executable, "-c", f"{blocked} import longhand_server.ray_app"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install '.[ray]' in Longhand's folder" in started.stderr
