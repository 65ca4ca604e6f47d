"""Three servers and a client, each on a host of its own (network namespaces), and what can befall a host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helpers.checking_client import Answer
from helpers.hosts import Hosts, HostsUnavailableError
from helpers.server_process import ServerProcess
from longhand_client.bench.statistics import percentile

pytestmark = [pytest.mark.scale, pytest.mark.timeout(180)]

_SERVERS = ("one", "two", "three")
_RATE = 15.0
_BEFORE_S, _RECOVERY_S, _AFTER_S = 3.0, 5.0, 6.0
# Far above what a busy machine needs for a call, far below what waiting for a lost host would take.
_RECOVERED_P99_S = 1.5


class Cluster:
    """The servers, by the name of their host."""

    def __init__(self, hosts: Hosts, bundle: Path, folder: Path) -> None:
        self.hosts = hosts
        self.servers: dict[str, ServerProcess] = {}
        self._bundle, self._folder = bundle, folder

    def start(self, name: str) -> None:
        """Starts the host's server, always on the same port."""
        if name in self.servers:
            self.servers[name].process.wait(30)
        where = ("--host", self.hosts.address(name), "--port", "50051", "--insecure")
        self.servers[name] = ServerProcess(
            self._bundle,
            self._folder / name,
            *(*where, "--threads", "1", "--log-calls", "--drain-delay-s", "1", "--grace-s", "10"),
            prefix=self.hosts.prefix(name),
        )

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to the host's server."""
        self.servers[name].process.send_signal(number)

    def client(self, seconds: float) -> subprocess.Popen[str]:
        """Starts the client on its host."""
        addresses = [f"{self.hosts.address(name)}:50051" for name in _SERVERS]
        command = [sys.executable, "-m", "helpers.checking_client", str(seconds), str(_RATE), *addresses]
        tests = str(Path(__file__).parents[1])
        environment = {**os.environ, "PYTHONPATH": tests}
        return subprocess.Popen(
            [*self.hosts.prefix("client"), *command], stdout=subprocess.PIPE, text=True, env=environment
        )

    def calls_of(self, name: str) -> int:
        """Calls that the host's server has logged since it was started."""
        return self.servers[name].text().count("Recognize")


@pytest.fixture(scope="module")
def cluster(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers that answer."""
    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(Hosts(*_SERVERS, "client"))
        except HostsUnavailableError as error:
            pytest.skip(f"no network namespaces here: {error}")
        cluster = Cluster(hosts, toy_bundle, tmp_path_factory.mktemp("hosts"))
        for name in _SERVERS:
            cluster.start(name)
        yield cluster
        for server in cluster.servers.values():
            server.process.kill()
            server.process.wait()


def _run(cluster: Cluster, fault: Callable[[], None]) -> float:
    """Runs the client through a fault, checks every answer, returns the p99 from 5 s after the fault on, in s.

    The fault function may take its time; the 5 s count from its end.
    """
    with cluster.client(1.0) as ready:  # warms the servers up and shows that they answer
        ready.communicate(timeout=60)
    duration = _BEFORE_S + _RECOVERY_S + _AFTER_S + 6.0
    with cluster.client(duration) as client:
        assert client.stdout is not None
        answers = [Answer(**json.loads(client.stdout.readline()))]
        time.sleep(_BEFORE_S)
        fault()
        recovered = time.monotonic() + _RECOVERY_S
        answers += [Answer(**json.loads(line)) for line in client.stdout]
    assert client.returncode == 0
    assert [answer for answer in answers if answer.wrong] == []
    for kind in ("call", "stream"):
        numbers = sorted(answer.number for answer in answers if answer.kind == kind)
        assert numbers == list(range(round(duration * _RATE))), f"{kind}: lost or doubled"
    before = [one.seconds for one in answers if one.sent + one.seconds < recovered - _RECOVERY_S]
    after = [answer.seconds for answer in answers if answer.sent >= recovered]
    assert len(after) > _RATE * _AFTER_S
    worst = max(answer.seconds for answer in answers)
    p99 = percentile(after, 0.99)
    print(f"p99 before {percentile(before, 0.99):.2f} s, 5 s after {p99:.2f} s, worst answer {worst:.2f} s")
    return p99


def test_a_killed_server(cluster: Cluster) -> None:
    assert _run(cluster, lambda: cluster.signal("one", signal.SIGKILL)) < _RECOVERED_P99_S
    cluster.start("one")


def test_a_server_that_is_cut_off_without_a_reset(cluster: Cluster) -> None:
    assert _run(cluster, lambda: cluster.hosts.cut("two")) < _RECOVERED_P99_S
    cluster.hosts.mend("two")


def test_a_slow_server(cluster: Cluster) -> None:
    def slow_for_a_while() -> None:
        for _ in range(8):
            cluster.signal("three", signal.SIGSTOP)
            time.sleep(0.4)
            cluster.signal("three", signal.SIGCONT)
            time.sleep(0.1)

    assert _run(cluster, slow_for_a_while) < _RECOVERED_P99_S


def test_a_server_that_is_drained_and_comes_back(cluster: Cluster) -> None:
    def drain_and_start() -> None:
        assert cluster.servers["one"].stop() == 0
        cluster.start("one")

    assert _run(cluster, drain_and_start) < _RECOVERED_P99_S
    assert cluster.calls_of("one") > _RATE, "the server that came back gets no calls"
