"""Longhand on Ray Serve in a process of its own, by `serve run FILE`, on free ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from helpers.process_tree import process_tree, title
from helpers.web_process import free_port

CONFIG = Path(__file__).parents[2] / "server" / "deploy" / "ray" / "longhand.yaml"
_START_SECONDS = 300.0
# A cluster of its own, as small as it goes: Ray would take a third of the memory and start a dashboard.
_CLUSTER = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
_RUN = f"""
import sys, ray
from ray.serve.scripts import cli
for attempt in range(3):  # a busy machine may take longer than the 30 s that Ray gives itself
    try:
        ray.init(namespace="serve", address="local", **{_CLUSTER!r})
        break
    except Exception as error:
        print(error)
        ray.shutdown()
cli(["run", sys.argv[1]])
"""


def ray_config(model: Path, port: int, replicas: int = 1, **arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The shipped configuration with another model, other ports, and a number of replicas each of which has a part
    of a core.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"] = free_port()
    config["grpc_options"]["port"] = port
    (application,) = config["applications"]
    application["args"] |= {"models": {"model": str(model)}, **arguments}
    for deployment in application["deployments"]:
        del deployment["autoscaling_config"]
        deployment |= {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.4}}
    return config


class RayProcess:
    """Starts it and waits until its health service answers.

    Attributes:
        address: ``127.0.0.1:PORT``.
        log: The file that gets its standard output and error.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "ray.log"
        file = folder / "serve.yaml"
        file.write_text(yaml.safe_dump(dict(config)))
        self.address = f"127.0.0.1:{config['grpc_options']['port']}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, str(file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"},
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + _START_SECONDS
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while True:
                if self.process.poll() is not None:
                    raise RuntimeError(f"Ray did not start:\n{self.text()}")
                try:
                    stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                except grpc.RpcError as error:
                    if time.monotonic() > end:
                        raise RuntimeError(f"Ray does not answer ({error}):\n{self.text()}") from error
                    time.sleep(0.3)
                else:
                    return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of the replicas of a deployment."""
        return [pid for pid in self.processes() if f"ServeReplica:longhand:{deployment}" in title(pid)]

    def processes(self) -> list[int]:
        """Every process that belongs to it."""
        return process_tree(self.process.pid)

    def stop(self) -> None:
        """Ctrl-C, which makes `serve run` shut down; what is left of its processes is killed."""
        processes = self.processes()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in processes[1:]:
            # Ray's processes end with their parent; nobody else's get a signal, as none of them has ended yet.
            if Path(f"/proc/{pid}").exists() and "ray" in title(pid):
                os.kill(pid, signal.SIGKILL)
