"""Several hosts on one machine: network namespaces that a bridge, in a namespace of its own, connects.

Nothing leaves them: the addresses are of the range for benchmarks (RFC 2544, 198.18.0.0/15), and no namespace has a
way to the machine's own network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Self


class HostsUnavailableError(Exception):
    """Network namespaces are not to be had here; the message says why."""


class Hosts:
    """Namespaces that reach one another, as a context manager.

    Args:
        names: The hosts; host number n gets the address 198.18.0.(n + 1).

    Raises:
        HostsUnavailableError: Entering it is not permitted, or a tool is missing.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._tag = f"lh{os.getpid()}"

    def __enter__(self) -> Self:
        if shutil.which("ip") is None:
            raise HostsUnavailableError("ip is not installed (Debian: apt-get install iproute2)")
        try:
            self._set_up()
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise HostsUnavailableError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from error
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*self._names, "switch"):
            subprocess.run(["ip", "netns", "delete", self._namespace(name)], capture_output=True, check=False)

    def address(self, name: str) -> str:
        """The host's IP address."""
        return f"198.18.0.{self._names.index(name) + 1}"

    def prefix(self, name: str) -> list[str]:
        """What to put before a command that is to run on the host; its process is the command's own."""
        return ["ip", "netns", "exec", self._namespace(name)]

    def cut(self, name: str) -> None:
        """Takes the host's cable out: packets are lost in silence, nobody gets a reset."""
        self._switch("link", "set", f"port-{name}", "down")

    def mend(self, name: str) -> None:
        """Puts the cable back."""
        self._switch("link", "set", f"port-{name}", "up")

    def _namespace(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _switch(self, *arguments: str) -> None:
        _ip("-n", self._namespace("switch"), *arguments)

    def _set_up(self) -> None:
        _ip("netns", "add", self._namespace("switch"))
        self._switch("link", "add", "bridge", "type", "bridge")
        self._switch("link", "set", "bridge", "up")
        for name in self._names:
            host, port = self._namespace(name), f"port-{name}"
            _ip("netns", "add", host)
            self._switch("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
            self._switch("link", "set", port, "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            _ip("-n", host, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
