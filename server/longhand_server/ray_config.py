"""The configuration of Longhand on Ray Serve: what may stand in it, checked before anything starts.

``python -m longhand_server.ray_config FILE`` says what is wrong with a configuration for ``serve deploy``, or with
the ``serveConfigV2`` of a RayService manifest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longhand_server.config import ServerConfig, Settings, setting
from longhand_server.errors import ConfigurationError
from longhand_server.settings import check_tree, config_from_tree

IMPORT_PATH = "longhand_server.ray_app:build_app"
SERVICES = "longhand_server.ray_proxy.add_services"
DEPLOYMENTS = ("Gateway", "Recognition")
NEEDED = "pip install '.[ray]' in Longhand's folder"
# What a server process decides for itself but Ray decides here, and where.
_ELSEWHERE = {
    "listen": {
        "host": "Ray's proxies listen on every interface",
        "port": "grpc_options.port",
        "port_file": "grpc_options.port",
        "workers": "num_replicas or autoscaling_config of the deployments",
        "reuse_port": "proxy_location",
        "drain_delay_s": "graceful_shutdown_wait_loop_s of the deployments",
        "max_connection_age_s": "the load balancer before Ray's proxies",
    },
    "security": {
        "tls_cert": "RAY_USE_TLS and RAY_TLS_SERVER_CERT in the environment",
        "tls_key": "RAY_USE_TLS and RAY_TLS_SERVER_KEY in the environment",
        "tls_client_ca": "RAY_USE_TLS and RAY_TLS_CA_CERT in the environment",
    },
    "observe": {
        "metrics_port": "Ray's own metrics (ray start --metrics-export-port)",
        "metrics_host": "Ray's own metrics (ray start --metrics-export-port)",
        "log_level": "logging_config",
        "log_format": "logging_config",
    },
}


@dataclass(frozen=True)
class RayConfig(Settings):
    """What there is on Ray alone."""

    in_flight: int = setting(
        64,
        "images that one replica of Gateway prepares or has read at a time; the others wait in its queue",
        low=1,
        high=100_000,
    )


def application_config(arguments: Mapping[str, Any]) -> tuple[ServerConfig, RayConfig]:
    """The settings in the ``args`` of the application.

    Args:
        arguments: Section to key to value, as in the server's TOML file, and the section ``ray``.

    Raises:
        ConfigurationError: An unknown key, a wrong value, or a setting that is Ray's own here; or nobody would be
            kept out, and nobody said ``insecure``.
    """
    for section, names in _ELSEWHERE.items():
        given = arguments.get(section)
        for name in given if isinstance(given, Mapping) else ():
            if name in names:
                raise ConfigurationError(f"args: [{section}] {name}: on Ray Serve set by {names[name]}")
    rest = {section: entries for section, entries in arguments.items() if section != "ray"}
    config = config_from_tree(rest, "args")
    values = check_tree({"ray": arguments.get("ray", {})}, {"ray": RayConfig}, "args")
    if not (config.security.token_file or config.security.insecure):
        raise ConfigurationError(
            "args: Ray's proxies listen on every interface; in [security] set token_file, or say insecure: true"
        )
    return config, RayConfig(**{name: value for (_, name), value in values.items()})  # type: ignore[arg-type]


def check_file(path: Path) -> list[str]:
    """What is wrong with a Serve configuration or a RayService manifest; empty = nothing.

    Raises:
        ConfigurationError: It is no YAML, or Ray is not installed.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(tree, Mapping) and tree.get("kind") == "RayService":
            tree = yaml.safe_load(tree["spec"]["serveConfigV2"])
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: no Serve configuration: {error!r}") from error
    return check_serve_config(tree)


def check_serve_config(tree: Any) -> list[str]:
    """What is wrong with a Serve configuration.

    Ray itself takes keys that it does not know for keys of a later version and passes them over; here they count.

    Raises:
        ConfigurationError: Ray is not installed.
    """
    try:
        from ray.serve.config import AutoscalingConfig
        from ray.serve.schema import ServeDeploySchema
    except ImportError as error:
        raise ConfigurationError(f"Ray Serve is not installed here ({error.name}): {NEEDED}") from error
    schema, problems = _parse(ServeDeploySchema, tree, "")
    if schema is None:
        return problems
    functions = schema.grpc_options.grpc_servicer_functions
    if SERVICES not in functions:
        problems.append(f"grpc_options.grpc_servicer_functions: got {functions}, need {SERVICES}")
    for number, application in enumerate(schema.applications):
        where = f"applications[{number}]"
        if application.import_path != IMPORT_PATH:
            problems.append(f"{where}.import_path: got {application.import_path!r}, need {IMPORT_PATH!r}")
        for place, deployment in enumerate(application.deployments):
            inner = f"{where}.deployments[{place}]"
            if deployment.name not in DEPLOYMENTS:
                problems.append(
                    f"{inner}.name: got {deployment.name!r}, need one of {', '.join(DEPLOYMENTS)}"
                )
            # Ray looks into this one only when it deploys.
            if isinstance(deployment.autoscaling_config, Mapping):
                given = deployment.autoscaling_config
                problems += _parse(AutoscalingConfig, given, f"{inner}.autoscaling_config")[1]
        try:
            application_config(application.args)
        except ConfigurationError as error:
            problems.append(f"{where}.{error}")
    return problems


def _parse(schema: Any, tree: Any, where: str) -> tuple[Any, list[str]]:
    """The tree as one of Ray's schemas, None where it does not fit; and what is wrong with it."""
    from pydantic import ValidationError

    try:
        model = schema.model_validate(tree)
    except ValidationError as error:
        return None, [
            f"{_join(where, *item['loc'])}: got {item['input']!r}: {item['msg']}" for item in error.errors()
        ]
    return model, list(_unknown_keys(tree, model, where))


def _join(*keys: str | int) -> str:
    name = ""
    for key in keys:
        name += f"[{key}]" if isinstance(key, int) else f".{key}"
    return name.lstrip(".")


def _unknown_keys(tree: Any, model: Any, where: str) -> Iterator[str]:
    """Keys that stand in the file and in no field of Ray's schema."""
    if isinstance(tree, list) and isinstance(model, list):
        for number, (entry, inner) in enumerate(zip(tree, model, strict=True)):
            yield from _unknown_keys(entry, inner, f"{where}[{number}]")
    known = getattr(type(model), "model_fields", None)
    if not isinstance(tree, Mapping) or known is None:
        return
    for key, value in tree.items():
        name = _join(where, str(key))
        if key not in known:
            yield f"{name}: unknown key, need one of {', '.join(sorted(known))}"
        else:
            yield from _unknown_keys(value, getattr(model, key), name)


def main() -> int:
    """Checks the files named on the command line; returns 0 where nothing is wrong, else 2."""
    failed = not sys.argv[1:]
    if failed:
        print("usage: python -m longhand_server.ray_config FILE ...", file=sys.stderr)
    for name in sys.argv[1:]:
        try:
            problems = check_file(Path(name))
        except ConfigurationError as error:
            problems = [str(error)]
        for problem in problems:
            print(f"{name}: {problem}", file=sys.stderr)
        failed = failed or bool(problems)
    if not failed:
        print(f"{len(sys.argv) - 1} checked, nothing wrong")
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
