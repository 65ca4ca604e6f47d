"""The Kubernetes manifests keep to the schemas, to the server's settings and to one another."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest

manifests = pytest.importorskip(
    "helpers.manifests", reason="kubernetes-validate is not installed", exc_type=ImportError
)
KUBERNETES = manifests.KUBERNETES
Resource = dict[str, object]
FOLDERS = ("base", "overlays/gpu", "overlays/tls", "overlays/gpu-tls")
pytestmark = pytest.mark.skipif(
    manifests.kustomize_command() is None, reason="neither kubectl nor kustomize is installed"
)


@pytest.fixture(scope="module")
def built() -> dict[str, list[Resource]]:
    """What Kustomize makes of each folder."""
    return {name: manifests.build(KUBERNETES / name) for name in FOLDERS}


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_is_wrong(name: str, built: dict[str, list[Resource]]) -> None:
    assert manifests.problems(built[name], manifests.adapter_values()) == []


def test_every_kind_that_an_operator_needs_is_there(built: dict[str, list[Resource]]) -> None:
    kinds = {str(resource["kind"]) for resource in built["base"]}
    needed = "Deployment Service HorizontalPodAutoscaler PodDisruptionBudget NetworkPolicy ServiceAccount ConfigMap"
    assert kinds == set(needed.split())


def _find(resources: list[Resource], kind: str) -> dict[str, object]:
    return next(resource for resource in resources if resource["kind"] == kind)


def _set(kind: str, path: str, value: object) -> Callable[[list[Resource]], None]:
    """A change of one value; the path's parts are keys and places."""

    def change(resources: list[Resource]) -> None:
        at: object = _find(resources, kind)
        *way, last = path.split("/")
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at[part]  # type: ignore[index]
        at[last] = value  # type: ignore[index]

    return change


_CONTAINER = "spec/template/spec/containers/0"
_MISTAKES: list[tuple[str, Callable[[list[Resource]], None], str]] = [
    (
        "unknown key",
        _set("Deployment", "spec/template/spec/graceSeconds", 3),
        "'graceSeconds' was unexpected",
    ),
    ("wrong type", _set("Service", "spec/ports/0/port", "many"), "spec.ports.0.port: 'many' is not"),
    (
        "unknown setting",
        _set("ConfigMap", "data/LONGHAND_MAX_QUEU", "9"),
        "LONGHAND_MAX_QUEU: the server has no",
    ),
    ("wrong value", _set("ConfigMap", "data/LONGHAND_MAX_QUEUE", "0"), "LONGHAND_MAX_QUEUE: got 0"),
    ("open to all", _set("ConfigMap", "data/LONGHAND_TOKEN_FILE", ""), "Deployment longhand: host"),
    ("unknown flag", _set("Deployment", f"{_CONTAINER}/args", ["--hots", "::"]), "args: ['--hots', '::']"),
    ("other port", _set("ConfigMap", "data/LONGHAND_PORT", "50052"), "port grpc: the container says 50051"),
    ("other metrics", _set("ConfigMap", "data/LONGHAND_METRICS_PORT", "9"), "prometheus.io/port: 9090"),
    ("probe", _set("Deployment", f"{_CONTAINER}/livenessProbe/grpc/port", 1), "livenessProbe: port 1,"),
    (
        "service",
        _set("Deployment", f"{_CONTAINER}/readinessProbe/grpc/service", "x"),
        "readinessProbe: service 'x'",
    ),
    ("TLS", _set("ConfigMap", "data/LONGHAND_TLS_CERT", "/etc/longhand/tokens/c"), "speak no TLS"),
    (
        "no volume",
        _set("ConfigMap", "data/LONGHAND_TOKEN_FILE", "/t"),
        "LONGHAND_TOKEN_FILE: /t lies in no volume",
    ),
    ("grace", _set("ConfigMap", "data/LONGHAND_GRACE_S", "41"), "terminationGracePeriodSeconds: 45, need 56"),
    (
        "drain",
        _set("ConfigMap", "data/LONGHAND_DRAIN_DELAY_S", "30"),
        "terminationGracePeriodSeconds: 45, need 65",
    ),
    (
        "links",
        _set("Deployment", "spec/template/spec/enableServiceLinks", True),
        "enableServiceLinks: need false",
    ),
    (
        "everything",
        _set("PodDisruptionBudget", "spec/selector", {}),
        "PodDisruptionBudget longhand: selector: {}",
    ),
    ("nothing", _set("Service", "spec/selector", {"app": "x"}), "Service longhand: selector: {'app': 'x'}"),
    ("target", _set("HorizontalPodAutoscaler", "spec/scaleTargetRef/name", "x"), "there is no Deployment x"),
    (
        "metric",
        _set("HorizontalPodAutoscaler", "spec/metrics/0/pods/metric/name", "m"),
        "metric m: the Prometheus",
    ),
    ("policy", _set("NetworkPolicy", "spec/ingress/0/ports/0/port", "http"), "ingress port: http is no port"),
]


@pytest.mark.parametrize(("change", "said"), [m[1:] for m in _MISTAKES], ids=[m[0] for m in _MISTAKES])
def test_a_mistake_is_named(
    change: Callable[[list[Resource]], None], said: str, built: dict[str, list[Resource]]
) -> None:
    resources = copy.deepcopy(built["base"])
    change(resources)
    found = manifests.problems(resources, manifests.adapter_values())
    assert any(said in line for line in found), found


def test_a_metric_that_the_server_does_not_export_is_named(built: dict[str, list[Resource]]) -> None:
    adapter = manifests.adapter_values()
    rule = adapter["rules"]["custom"][0]
    rule["metricsQuery"] = rule["metricsQuery"].replace("stage_seconds_sum", "stage_second_sum")
    (found,) = manifests.problems(built["base"], adapter)
    assert "longhand_stage_second_sum: the server exports no such metric" in found


def test_the_threads_are_the_requested_cores(built: dict[str, list[Resource]]) -> None:
    for name, cores in (("base", 4), ("overlays/gpu", 8)):
        (container,) = _find(built[name], "Deployment")["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
        assert manifests.configuration_of(container, built[name]).runtime.threads == cores


def test_pods_run_as_the_image_s_user(built: dict[str, list[Resource]]) -> None:
    for name, file in (("base", "Dockerfile"), ("overlays/gpu", "Dockerfile.cuda")):
        user = re.search(r"^USER (\d+)$", (KUBERNETES.parent / file).read_text(), re.MULTILINE)
        assert user is not None
        context = _find(built[name], "Deployment")["spec"]["template"]["spec"]["securityContext"]  # type: ignore[index]
        assert context["runAsUser"] == int(user[1])


def test_a_folder_that_kustomize_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    with pytest.raises(RuntimeError, match=r"nothing\.yaml"):
        manifests.build(tmp_path)
