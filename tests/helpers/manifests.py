"""Checks Kubernetes manifests against the published schemas, against the server's settings and against one another.

``PYTHONPATH=tests python -m helpers.manifests FOLDER ...`` (``make check-kubernetes``) says what is wrong with
Kustomize folders; the tests run the same checks on ours.
"""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from helpers.rayservice import rayservice_problems
from longhand_server.config import ServerConfig
from longhand_server.errors import ConfigurationError
from longhand_server.metrics import Metrics
from longhand_server.security import check_exposure
from longhand_server.server import SERVICE_NAME
from longhand_server.settings import flag_name, parse_arguments, settings

KUBERNETES = Path(__file__).parents[2] / "server" / "deploy" / "kubernetes"
# preStop's `sleep` came to everybody with 1.30; the newest schema that the validator ships is the other end.
VERSIONS = ("1.30", kubernetes_validate.latest_version())
# The end of a drained server: the event loop stops, telemetry is flushed.
_SPARE_S = 5
# Kubernetes' own variables, which are no settings, would start like ours for a Service of this name.
_PREFIX = "LONGHAND_"
_FILE_SETTINGS = ("tls_cert", "tls_key", "tls_client_ca", "token_file")
Resource = dict[str, Any]


def kustomize_command() -> list[str] | None:
    """The program that builds a Kustomize folder; None where there is none."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def build(folder: Path) -> list[Resource]:
    """The resources of a Kustomize folder.

    Raises:
        RuntimeError: Kustomize is not installed or refuses the folder; its words are in the message.
    """
    command = kustomize_command()
    if command is None:
        raise RuntimeError("neither kustomize nor kubectl is installed")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{folder}: {done.stderr.strip()}")
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def problems(resources: Sequence[Resource], adapter: Resource) -> list[str]:
    """What is wrong with a set of resources, a line for each; empty where all is well.

    Args:
        resources: What Kustomize built.
        adapter: The values of the Prometheus adapter.
    """
    found = [
        line
        for resource in resources
        for line in (
            rayservice_problems(resource, schema_problems)
            if resource["kind"] == "RayService"
            else schema_problems(resource)
        )
    ]
    if found:
        return found  # what follows relies on the shape
    found += list(_adapter_problems(adapter))
    offered = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
    deployments = {_name(one): one for one in resources if one["kind"] == "Deployment"}
    for deployment in deployments.values():
        found += _deployment_problems(deployment, resources)
    for resource in resources:
        found += _selector_problems(resource, list(deployments.values()))
        if resource["kind"] == "HorizontalPodAutoscaler":
            found += _autoscaler_problems(resource, deployments, offered)
    return found


def schema_problems(resource: Resource) -> Iterator[str]:
    """Where a resource does not keep to the published schemas; an unknown key counts."""
    yield from _schema_problems(json.dumps(resource))


@functools.cache  # the schemas are read anew each time, and a test changes one resource of many at most
def _schema_problems(text: str) -> tuple[str, ...]:
    resource: Resource = json.loads(text)
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(map(str, error.path))
            return (f"{_name(resource)}: {place or 'top level'}: {error.message} (Kubernetes {version})",)
    return ()


def environment_of(container: Resource, resources: Sequence[Resource]) -> dict[str, str]:
    """The environment of a container: its ConfigMaps, then its own variables."""
    maps = {_name(one): one["data"] for one in resources if one["kind"] == "ConfigMap"}
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        environment |= maps[f"ConfigMap {source['configMapRef']['name']}"]
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("resourceFieldRef", {}).get("resource", "")
        if reference:
            kind, _, resource = reference.partition(".")
            # Kubernetes rounds up to whole cores.
            environment[variable["name"]] = str(math.ceil(float(container["resources"][kind][resource])))
        else:
            environment[variable["name"]] = variable["value"]
    return environment


def configuration_of(container: Resource, resources: Sequence[Resource]) -> ServerConfig:
    """The server's own reading of a container's variables and arguments.

    Raises:
        ConfigurationError: A wrong name or value; the message says which.
    """
    environment = environment_of(container, resources)
    known = {_PREFIX + flag_name(item).replace("-", "_").upper() for _, item in settings()}
    for name in environment:
        if name.startswith(_PREFIX) and name not in known | {_PREFIX + "CONFIG"}:
            raise ConfigurationError(f"{name}: the server has no such setting")
    return parse_arguments(container.get("args", []), environment)[0]


def metric_names() -> set[str]:
    """Every series that the server exports."""
    names = set()
    for family in Metrics().registry.collect():
        histogram = {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        names |= histogram if family.type == "histogram" else {family.name + _ending(family.type)}
    return names


def _ending(kind: str) -> str:
    return "_total" if kind == "counter" else ""


def _name(resource: Resource) -> str:
    return f"{resource['kind']} {resource['metadata']['name']}"


def _deployment_problems(deployment: Resource, resources: Sequence[Resource]) -> Iterator[str]:
    name, pod = _name(deployment), deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    try:
        config = configuration_of(container, resources)
        check_exposure(config.listen, config.security)
    except (ConfigurationError, KeyError) as error:
        yield f"{name}: {error}"
        return
    except SystemExit:
        yield f"{name}: args: {container['args']}: the server does not know one of them"
        return
    if pod.get("enableServiceLinks", True):
        yield f"{name}: enableServiceLinks: need false, or Kubernetes sets {_PREFIX}PORT=tcp://..."
    yield from (f"{name}: {line}" for line in _port_problems(deployment, config, resources))
    yield from (f"{name}: {line}" for line in _time_problems(pod, config))
    yield from (f"{name}: {line}" for line in _file_problems(container, config))
    cores = float(container["resources"]["requests"]["cpu"])
    if config.runtime.threads != math.ceil(cores):
        yield f"{name}: {_PREFIX}THREADS: {config.runtime.threads} for {cores:g} requested cores"


def _port_problems(
    deployment: Resource, config: ServerConfig, resources: Sequence[Resource]
) -> Iterator[str]:
    template = deployment["spec"]["template"]
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    wanted = {"grpc": config.listen.port, "metrics": config.observe.metrics_port}
    for name, number in wanted.items():
        if ports.get(name) != number:
            yield f"port {name}: the container says {ports.get(name)}, the server's setting {number}"
    annotated = template["metadata"].get("annotations", {}).get("prometheus.io/port")
    if annotated is not None and annotated != str(wanted["metrics"]):
        yield f"prometheus.io/port: {annotated}, the server's setting is {wanted['metrics']}"
    yield from _probe_problems(container, config, ports)
    for resource in resources:
        for place, port in _referenced_ports(resource):
            if port not in ports and port not in ports.values():
                yield f"{_name(resource)}: {place}: {port} is no port of the container {sorted(ports)}"


def _probe_problems(container: Resource, config: ServerConfig, ports: Mapping[str, int]) -> Iterator[str]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind, {})
        asked = probe.get("grpc")
        if asked is None:
            port = probe.get("tcpSocket", {}).get("port")
            if ports.get(port, port) != config.listen.port:
                yield f"{kind}: port {port}, the server listens on {config.listen.port}"
            continue
        if config.security.tls_cert:
            yield f"{kind}: the kubelet's gRPC probes speak no TLS"
        if asked["port"] != config.listen.port:
            yield f"{kind}: port {asked['port']}, the server listens on {config.listen.port}"
        if asked.get("service", "") not in ("", SERVICE_NAME):
            yield f"{kind}: service {asked['service']!r}, the server has {SERVICE_NAME!r}"


def _referenced_ports(resource: Resource) -> Iterator[tuple[str, object]]:
    """The ports of the pods that a Service or a NetworkPolicy names."""
    if resource["kind"] == "Service":
        for port in resource["spec"]["ports"]:
            yield "targetPort", port.get("targetPort", port["port"])
    if resource["kind"] == "NetworkPolicy":
        for rule in resource["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                yield "ingress port", port["port"]


def _time_problems(pod: Resource, config: ServerConfig) -> Iterator[str]:
    (container,) = pod["containers"]
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    listen = config.listen
    needed = pause + listen.drain_delay_s + listen.grace_s + _SPARE_S
    given = pod.get("terminationGracePeriodSeconds", 30)
    if given < needed:
        yield (
            f"terminationGracePeriodSeconds: {given}, need {needed:g} "
            f"(preStop {pause} + {_PREFIX}DRAIN_DELAY_S {listen.drain_delay_s:g} + {_PREFIX}GRACE_S "
            f"{listen.grace_s:g} + {_SPARE_S} to spare)"
        )


def _file_problems(container: Resource, config: ServerConfig) -> Iterator[str]:
    mounts = [Path(mount["mountPath"]) for mount in container.get("volumeMounts", [])]
    for name in _FILE_SETTINGS:
        file = getattr(config.security, name)
        if file and not any(mount in Path(file).parents for mount in mounts):
            yield f"{_PREFIX}{name.upper()}: {file} lies in no volume"


def _selector_problems(resource: Resource, deployments: Sequence[Resource]) -> Iterator[str]:
    """An empty selector would mean every pod of the namespace, a wrong one none."""
    key = {"NetworkPolicy": "podSelector"}.get(resource["kind"], "selector")
    if resource["kind"] not in ("Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"):
        return
    selector = resource["spec"].get(key, {})
    labels = selector if resource["kind"] == "Service" else selector.get("matchLabels", {})
    pods = [one["spec"]["template"]["metadata"].get("labels", {}) for one in deployments]
    if not labels or not any(labels.items() <= pod.items() for pod in pods):
        yield f"{_name(resource)}: {key}: {labels} does not select the pods, labelled {pods}"


def _autoscaler_problems(
    resource: Resource, deployments: Mapping[str, Resource], offered: set[str]
) -> Iterator[str]:
    target = resource["spec"]["scaleTargetRef"]
    if f"{target['kind']} {target['name']}" not in deployments:
        yield f"{_name(resource)}: scaleTargetRef: there is no {target['kind']} {target['name']}"
    for metric in resource["spec"]["metrics"]:
        if metric["type"] == "Pods" and metric["pods"]["metric"]["name"] not in offered:
            name = metric["pods"]["metric"]["name"]
            yield f"{_name(resource)}: metric {name}: the Prometheus adapter offers {sorted(offered)}"


def _adapter_problems(adapter: Resource) -> Iterator[str]:
    known = metric_names()
    for rule in adapter["rules"]["custom"]:
        text = rule["seriesQuery"] + rule["metricsQuery"]
        for name in sorted(set(re.findall(r"\blonghand_\w+", text)) - known):
            yield f"rule {rule['name']['as']}: {name}: the server exports no such metric"


def adapter_values() -> Resource:
    """Our values of the Prometheus adapter."""
    values: Resource = yaml.safe_load((KUBERNETES / "prometheus-adapter" / "values.yaml").read_text())
    return values


def main(folders: Sequence[str]) -> int:
    """Prints what is wrong with the folders; returns 1 where anything is."""
    found = []
    for folder in folders:
        found += [f"{folder}: {line}" for line in problems(build(Path(folder)), adapter_values())]
    print("\n".join(found) or f"{len(folders)} checked, nothing wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
