"""The RayService keeps to its keys, to Kubernetes' schemas, and holds a right Serve configuration."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import yaml

manifests = pytest.importorskip(
    "helpers.manifests", reason="kubernetes-validate is not installed", exc_type=ImportError
)
from helpers.rayservice import NOT_CHECKED, rayservice_problems

# Ray itself uses what pydantic will drop one day.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FILE = manifests.KUBERNETES / "ray" / "rayservice.yaml"


def problems(resource: dict[str, Any]) -> list[str]:
    """What is wrong; without Ray its part is left out."""
    found = list(rayservice_problems(resource, manifests.schema_problems))
    return [line for line in found if NOT_CHECKED not in line]


def test_nothing_is_wrong() -> None:
    assert problems(yaml.safe_load(FILE.read_text())) == []


def test_without_ray_it_says_that_the_serve_configuration_is_not_checked() -> None:
    found = list(rayservice_problems(yaml.safe_load(FILE.read_text()), manifests.schema_problems))
    assert any("pip install '.[ray]' in Longhand's folder" in line for line in found) == (
        importlib.util.find_spec("ray") is None
    )


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec/serveConfig", "", "spec.serveConfig: unknown key, need one of"),
        ("spec/rayClusterConfig/rayVersion", "2.0.0", "rayVersion: got 2.0.0, constraints.txt has another"),
        ("spec/rayClusterConfig/workerGroupSpecs/0/replica", 1, "workerGroupSpecs[0].replica: unknown key"),
        ("spec/rayClusterConfig/headGroupSpec/rayStartParams/num-cpus", 0, "num-cpus: got 0, need text"),
        ("spec/rayClusterConfig/headGroupSpec/template/spec/hots", 1, "'hots' was unexpected"),
        ("spec/serveService/spec/ports/0/targetPort", 9, "no port leads to grpc_options.port 50051"),
        (
            "spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0/resources/requests/cpu",
            "0.5",
            "a replica needs num_cpus 1, the largest pod has 0.5",
        ),
        (
            "spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0/ports",
            [{"containerPort": 1}],
            "workerGroupSpecs[0]: the container has no port 50051",
        ),
        (
            "spec/rayClusterConfig/workerGroupSpecs/0/template/spec/containers/0/volumeMounts",
            [{"name": "tmp", "mountPath": "/tmp"}],
            "workerGroupSpecs[0]: token_file /etc/longhand/tokens/tokens lies in no volume",
        ),
    ],
)
def test_a_mistake_is_named(path: str, value: object, said: str) -> None:
    resource = copy.deepcopy(yaml.safe_load(FILE.read_text()))
    place: Any = resource
    *way, last = path.split("/")
    for key in way:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[last] = value
    found = problems(resource)
    assert any(said in line for line in found), found


def test_a_mistake_in_the_serve_configuration_is_named() -> None:
    pytest.importorskip("ray", reason="Ray is not installed here: make test-scale brings it")
    resource = yaml.safe_load(FILE.read_text())
    resource["spec"]["serveConfigV2"] = resource["spec"]["serveConfigV2"].replace(
        "max_queue: 256", "max_queu: 1"
    )
    assert any("unknown key 'max_queu' in [batching]" in line for line in problems(resource))
