"""With the client's own packages alone: what needs more says what to install, in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Everything that an extra brings; `name` and all below it cannot be found.
HIDDEN = (
    "PIL",
    "cv2",
    "grpc_reflection",
    "matplotlib",
    "numpy",
    "onnxruntime",
    "rich",
    "starlette",
    "uvicorn",
)
SCRIPT = """
import runpy, sys
hidden, module, *arguments = sys.argv[1:]

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in hidden.split(",") else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Finder(finder) for finder in sys.meta_path]
sys.argv[1:] = arguments
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "arguments", "code", "extra"),
    [
        ("longhand_client.cli", ["x.png", "--local"], 1, "server"),
        ("longhand_client.benchmark", [], 1, "client"),
        ("longhand_server", [], 1, "server"),
        ("longhand_web", [], 1, "web"),
    ],
)
def test_what_is_missing_is_named(module: str, arguments: list[str], code: int, extra: str) -> None:
    command = [sys.executable, "-c", SCRIPT, ",".join(HIDDEN), module, *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == code, outcome.stderr
    assert f"pip install '.[{extra}]' in Longhand's folder" in outcome.stderr.splitlines()[-1]
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("hidden", "hint"), [("longhand_server", "say with --address HOST:PORT where one is"), ("PIL", "--local")]
)
def test_only_a_server_that_is_here_can_be_started(hidden: str, hint: str) -> None:
    arguments = ["longhand_client.cli", "health", "--address", "127.0.0.1:9", "--timeout", "20"]
    command = [sys.executable, "-c", SCRIPT, hidden, *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 3, outcome.stderr
    assert outcome.stderr.endswith(f"{hint}\n")


def test_the_library_loads_none_of_it() -> None:
    # grpc itself looks for grpc_reflection.
    heavy = {*HIDDEN, "torch", "longhand_server"} - {"grpc_reflection"}
    script = (
        f"import sys, longhand_client, longhand_client.cli; sys.exit(str({heavy} & set(sys.modules) or ''))"
    )
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert outcome.stderr.strip() == ""
