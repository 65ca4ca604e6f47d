"""Checks a RayService: its keys, its pods against Kubernetes' schemas, and the Serve configuration that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from longhand_server.errors import ConfigurationError
from longhand_server.ray_config import check_serve_config

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NOT_CHECKED = "serveConfigV2: not checked:"
# Keys of the custom resources ray.io/v1 that an operator may set. Kubernetes' validator has no custom resources.
_KEYS = {
    "spec": {
        "serveConfigV2", "rayClusterConfig", "serveService", "upgradeStrategy", "excludeHeadPodFromServeSvc",
        "rayClusterDeletionDelaySeconds",
    },
    "rayClusterConfig": {
        "headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions",
        "headServiceAnnotations", "suspend", "gcsFaultToleranceOptions", "managedBy",
    },
    "headGroupSpec": {"serviceType", "headService", "enableIngress", "rayStartParams", "template"},
    "workerGroupSpecs": {
        "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template",
        "scaleStrategy", "suspend", "idleTimeoutSeconds",
    },
}  # fmt: skip
Resource = dict[str, Any]


def rayservice_problems(
    resource: Resource, schema_problems: Callable[[Resource], Iterator[str]]
) -> Iterator[str]:
    """What is wrong with a RayService.

    Args:
        resource: The RayService.
        schema_problems: Checks a resource of Kubernetes' own.
    """
    name = f"RayService {resource['metadata']['name']}"
    yield from (f"{name}: {line}" for line in _problems(resource, schema_problems))


def _problems(resource: Resource, schema_problems: Callable[[Resource], Iterator[str]]) -> Iterator[str]:
    if resource["apiVersion"] != "ray.io/v1":
        yield f"apiVersion: got {resource['apiVersion']}, need ray.io/v1"
    spec = resource["spec"]
    cluster = spec["rayClusterConfig"]
    groups = {"headGroupSpec": cluster["headGroupSpec"]}
    groups |= {f"workerGroupSpecs[{n}]": group for n, group in enumerate(cluster["workerGroupSpecs"])}
    for where, part in {"spec": spec, "rayClusterConfig": cluster, **groups}.items():
        known = _KEYS[where.partition("[")[0]]
        for key in part.keys() - known:
            yield f"{where}.{key}: unknown key, need one of {', '.join(sorted(known))}"
    for where, group in groups.items():
        for key, value in group["rayStartParams"].items():
            if not isinstance(value, str):
                yield f"{where}.rayStartParams.{key}: got {value!r}, need text"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": where}, **group["template"]}
        pod["metadata"] = {"name": "pod", **group["template"].get("metadata", {})}
        yield from (f"{where}: {line}" for line in schema_problems(pod))
    pinned = f"ray=={cluster.get('rayVersion')}"
    if pinned not in CONSTRAINTS.read_text().splitlines():
        yield f"rayClusterConfig.rayVersion: got {cluster.get('rayVersion')}, constraints.txt has another one"
    yield from _serve_problems(spec, groups, schema_problems)


def _serve_problems(
    spec: Resource, groups: Mapping[str, Resource], schema_problems: Callable[[Resource], Iterator[str]]
) -> Iterator[str]:
    serve = yaml.safe_load(spec["serveConfigV2"])
    try:
        yield from (f"serveConfigV2: {line}" for line in check_serve_config(serve))
    except ConfigurationError as error:
        yield f"{NOT_CHECKED} {error}"
    service = {"apiVersion": "v1", "kind": "Service", **spec["serveService"]}
    yield from schema_problems(service)
    port = serve["grpc_options"]["port"]
    if port not in [entry.get("targetPort", entry["port"]) for entry in service["spec"]["ports"]]:
        yield f"serveService: no port leads to grpc_options.port {port}"
    (application,) = serve["applications"]
    needs = [one.get("ray_actor_options", {}) for one in application["deployments"]]
    largest: dict[str, float] = {"num_cpus": 0, "num_gpus": 0}
    for where, group in groups.items():
        (container,) = group["template"]["spec"]["containers"]
        if port not in [entry["containerPort"] for entry in container["ports"]]:
            yield f"{where}: the container has no port {port} (grpc_options.port)"
        requests = container["resources"]["requests"]
        given = {"num_cpus": group["rayStartParams"].get("num-cpus", requests["cpu"])}
        given["num_gpus"] = container["resources"]["limits"].get("nvidia.com/gpu", 0)
        largest = {key: max(largest[key], float(given[key])) for key in largest}
        yield from _file_problems(where, container, application["args"])
    for wanted in needs:
        for key in largest:
            if float(wanted.get(key, 0)) > largest[key]:
                yield f"serveConfigV2: a replica needs {key} {wanted[key]}, the largest pod has {largest[key]:g}"


def _file_problems(where: str, container: Resource, arguments: Resource) -> Iterator[str]:
    file = arguments.get("security", {}).get("token_file")
    mounts = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
    if file and not any(mount in Path(file).parents for mount in mounts):
        yield f"{where}: token_file {file} lies in no volume"
