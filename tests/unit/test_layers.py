"""Imports run one way: client -> proto; server -> proto, decoder; training -> decoder, parts of the server."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "longhand": ROOT / "proto" / "longhand",
    "longhand_decoder": ROOT / "decoder_ext" / "longhand_decoder",
    "longhand_server": ROOT / "server" / "longhand_server",
    "longhand_training": ROOT / "training" / "longhand_training",
    "longhand_client": ROOT / "clients" / "longhand_client",
    "longhand_web": ROOT / "clients" / "web" / "longhand_web",
}
ALLOWED = {
    "longhand": set[str](),
    "longhand_decoder": set[str](),
    "longhand_server": {"longhand", "longhand_decoder"},
    "longhand_training": {"longhand_decoder", "longhand_server"},
    "longhand_client": {"longhand"},
    "longhand_web": {"longhand_client"},
}
# The one exception: `longhand --local` reads without a server. The import stands inside a function.
IN_PROCESS = PACKAGES["longhand_client"] / "command" / "in_process.py"
IN_PROCESS_USES = {"longhand_server.config", "longhand_server.errors", "longhand_server.in_process"}
# What training may take from the server: what a model is and how it reads a line, not how it is served. So an
# evaluation measures the exported files as they are read in service.
TRAINING_USES = {
    "errors",
    "config",
    "alphabet",
    "image",
    "image_file",
    "network",
    "bundle",
    "runtime",
    "options",
    "recognizer",
}
# The server's files, lowest first. A file may reach, directly or through others, only files above it.
SERVER_ORDER = [
    "errors",
    "config",
    "settings",
    "logs",
    "ports",
    "memory",
    "cores",
    "standard_streams",
    "interrupts",
    "probe",
    "gpus",
    "supervisor",
    "security",
    "alphabet",
    "image_formats",
    "image_file",
    "ink",
    "image",
    "network",
    "bundle",
    "runtime",
    "options",
    "recognizer",
    "statistics",
    "batching",
    "workers",
    "streaming",
    "metrics",
    "tracing",
    "pipeline",
    "registry",
    "remote",
    "messages",
    "calls",
    "work",
    "servicer",
    "oip_tensors",
    "oip_parameters",
    "oip_models",
    "oip_stream",
    "oip_refusals",
    "oip_servicer",
    "in_process",
    "server",
    "__main__",
    "ray_config",
    "bulk_plan",
    "bulk_reader",
    "bulk_ray",
    "bulk",
    "ray_proxy",
    "ray_recognition",
    "ray_app",
]
# Python files that import PyTorch at their top; a CPU server never loads them.
TORCH_FILES = {"network.py", "torch_runtime.py", "runtime_torch.py"}


def imports_of(path: Path, package: str, *, top_level_only: bool = False) -> set[str]:
    """Full names of the modules that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            # `from package import module` names a module too.
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def files_of(package: str) -> list[tuple[Path, str]]:
    """Python files of a package, each with the name of the package that it lies in."""
    root = PACKAGES[package]
    return [
        (path, ".".join([package, *path.relative_to(root).parent.parts]))
        for path in sorted(root.rglob("*.py"))
        if "_pb2" not in path.name
    ]


def server_graph() -> dict[str, set[str]]:
    """Which of the server's top-level modules imports which."""
    root = PACKAGES["longhand_server"]
    graph: dict[str, set[str]] = {}
    names = {path.stem if path.is_file() else path.name for path in root.iterdir()}
    for path, package in files_of("longhand_server"):
        relative = path.relative_to(root)
        module = relative.parts[0].removesuffix(".py")
        targets = {
            name.split(".")[1] for name in imports_of(path, package) if name.startswith("longhand_server.")
        }
        graph.setdefault(module, set()).update((targets & names) - {module})
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), set()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_import_only_what_lies_below(package: str) -> None:
    assert PACKAGES[package].is_dir()
    for path, inner in files_of(package):
        if path == IN_PROCESS:
            continue
        ours = {name.split(".")[0] for name in imports_of(path, inner)} & set(PACKAGES)
        assert ours <= ALLOWED[package] | {package}, f"{path} imports {ours - ALLOWED[package] - {package}}"


def test_the_client_reaches_into_the_server_at_one_place_only() -> None:
    inner = "longhand_client.command"
    server = {name for name in imports_of(IN_PROCESS, inner) if name.startswith("longhand_server")}
    assert {".".join(name.split(".")[:2]) for name in server} == IN_PROCESS_USES
    at_the_top = {name.split(".")[0] for name in imports_of(IN_PROCESS, inner, top_level_only=True)}
    assert at_the_top & set(PACKAGES) == {"longhand_client"}


def test_the_command_line_starts_without_the_server() -> None:
    script = (
        "import sys, longhand_client.cli; sys.exit(any('longhand_server' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_training_takes_only_the_model_from_the_server() -> None:
    for path, package in files_of("longhand_training"):
        parts = {
            name.split(".")[1]
            for name in imports_of(path, package)
            if name.startswith("longhand_server.") and importlib.util.find_spec(".".join(name.split(".")[:2]))
        }
        assert parts <= TRAINING_USES, f"{path} imports {parts - TRAINING_USES} of the server"


def test_the_servers_files_import_only_upwards() -> None:
    graph = server_graph()
    for position, name in enumerate(SERVER_ORDER):
        below = set(SERVER_ORDER[position + 1 :]) & reachable(graph, name)
        assert not below, f"server/longhand_server/{name} reaches {sorted(below)}, which stand below it"


def test_the_servers_imports_have_no_cycle() -> None:
    graph = server_graph()
    cyclic = sorted(name for name in graph if name in reachable(graph, name))
    assert not cyclic


def test_only_named_files_import_torch() -> None:
    for path, package in files_of("longhand_server"):
        if path.name not in TORCH_FILES:
            names = {name.split(".")[0] for name in imports_of(path, package, top_level_only=True)}
            assert "torch" not in names, f"{path} imports torch at its top"


def test_the_server_starts_without_torch() -> None:
    script = "import sys, longhand_server.server; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_program_with_the_client_can_use_tritonclient() -> None:
    """Its message types have the names of ours, so the client must not load them."""
    script = "import sys, longhand_client; sys.exit(any('oip' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_rules_see_every_kind_of_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\nfrom ..h import i\n"
        "def late():\n    import torch\n"
    )
    assert imports_of(file, "p.q") == {
        *("a.b", "c", "c.d", "p.q", "p.q.e", "p.q.f", "p.q.f.g", "p.h", "p.h.i", "torch")
    }
    assert "torch" not in imports_of(file, "p.q", top_level_only=True)
    assert reachable({"a": {"b"}, "b": {"c"}, "c": {"a"}}, "a") == {"a", "b", "c"}
