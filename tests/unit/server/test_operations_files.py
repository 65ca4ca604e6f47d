"""What operators read and deploy agrees with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from longhand_server import errors
from longhand_server.config import ServerConfig
from longhand_server.metrics import Metrics
from longhand_server.recognizer import Timings, Transcription
from longhand_server.settings import flag_name, parse_arguments, settings

READING = ("Recognize", "BatchRecognize", "StreamingRecognize", "ModelInfer", "ModelStreamInfer")
_SERVER = Path(__file__).parents[3] / "server"
_DEPLOY = _SERVER / "deploy"
_README = (_SERVER / "README.md").read_text(encoding="utf-8")


def metric_names() -> set[str]:
    families = Metrics().registry.collect()
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_the_readme_has_every_setting_with_its_default() -> None:
    for _, item in settings():
        default = {"": "", "True": "true", "False": "false"}.get(str(item.default), str(item.default))
        row = f"| `--{flag_name(item)}` | `{item.name}` | {default} |"
        assert row in _README, row
        assert item.metadata["description"] in _README


def test_the_readme_has_every_metric_and_no_other() -> None:
    table = set(re.findall(r"^\| `(longhand_\w+)` \|", _README, re.MULTILINE))
    assert table == metric_names()


def test_the_readme_has_every_reason_with_its_code_and_no_other() -> None:
    tree = [errors.LonghandError]
    for kind in tree:
        tree += kind.__subclasses__()
    # A wrong setting stops the start; no caller ever sees it.
    known = {(kind.code, kind.reason) for kind in tree} - {("FAILED_PRECONDITION", "INVALID_CONFIGURATION")}
    rows = re.findall(r"^\| ([A-Z_]+) \| (`.*?) \|", _README, re.MULTILINE)
    assert known == {(code, reason) for code, reasons in rows for reason in re.findall(r"`(\w+)`", reasons)}


def asked_of_prometheus() -> str:
    """The dashboard's queries and the alert rules."""
    dashboard = json.loads((_DEPLOY / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return "\n".join([*expressions, (_DEPLOY / "alerts.yml").read_text()])


def labels_of_metrics() -> dict[str, dict[str, set[str]]]:
    """The labels of each metric with their values, of a server that had a call of each kind."""
    metrics = Metrics()
    for method in (*READING, "GetModel", "ServerMetadata"):
        metrics.call_began()
        metrics.call_ended(method, "OK", "", 0.1)
    metrics.line_read("en", Transcription("a", 1.0, (), (), (), 9, 9, Timings(1.0, 1.0, 1.0, 1.0, 1)))
    metrics.batch_started("en", [9])
    metrics.watch_queue(metrics, "en", lambda: 0)
    metrics.watch_gpu("cuda:0", lambda: 0)
    labels: dict[str, dict[str, set[str]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            values = labels.setdefault(sample.name, {"instance": set()})
            for name, value in sample.labels.items():
                values.setdefault(name, set()).add(value)
    return labels


def test_dashboard_and_alerts_ask_for_labels_that_exist() -> None:
    labels, text = labels_of_metrics(), asked_of_prometheus()
    selectors = re.findall(r"(longhand_\w+)\{(.*?)\}", text)
    assert selectors
    for metric, selector in selectors:
        for name, pattern in re.findall(r'(\w+)(?:=~|!=|=)"(.*?)"', selector):
            assert name in labels[metric], (metric, name)
            if name in ("method", "stage"):
                assert any(re.fullmatch(pattern, value) for value in labels[metric][name]), pattern
    groups = re.findall(r"by \(([\w, ]+)\) \((?:rate\()?(longhand_\w+)", text)
    assert groups
    for grouped, metric in groups:
        assert set(grouped.split(", ")) <= set(labels[metric]), (metric, grouped)


def test_calls_that_only_ask_and_streams_that_stay_open_count_for_no_latency() -> None:
    # A client that asks every few seconds whether the server is there would make the median a millisecond.
    asked = re.findall(r"(longhand_call\w+)\{method=~\"(.*?)\"\}", asked_of_prometheus())
    methods = labels_of_metrics()["longhand_calls_total"]["method"]
    counted = {metric: {one for one in methods if re.fullmatch(pattern, one)} for metric, pattern in asked}
    assert counted == {
        "longhand_call_seconds_bucket": {"Recognize", "BatchRecognize", "ModelInfer"},
        "longhand_calls_total": set(READING),
    }


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    text = asked_of_prometheus()
    asked = set(re.findall(r"longhand_\w+", text))
    known = metric_names()
    for name in asked:
        assert name in known or re.sub(r"_(bucket|sum|count)$", "", name) in known, name
    reasons = {error.reason for error in errors.LonghandError.__subclasses__()}
    assert set(re.findall(r'reason="(\w+)"', text)) <= reasons


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_do_not_run_as_root_and_copy_what_is_there(name: str) -> None:
    lines = (_DEPLOY / name).read_text().splitlines()
    user = next(line.split()[1] for line in lines if line.startswith("USER "))
    assert user.isdigit()
    assert int(user) > 0
    assert any(line.startswith("HEALTHCHECK ") and "longhand_server.probe" in line for line in lines)
    assert lines.index(f"USER {user}") < next(
        i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_open_the_ports_that_the_server_uses(name: str) -> None:
    text = (_DEPLOY / name).read_text()
    lines = "\n".join(line for line in text.splitlines() if line.startswith("ENV "))
    environment = dict(re.findall(r"(LONGHAND_\w+)=(\S+)", lines))
    config = parse_arguments(["--token-file", "x", "--metrics-port", "9090"], environment)[0]
    assert f"EXPOSE {config.listen.port} {config.observe.metrics_port}" in text.splitlines()
    assert config.listen.host == "0.0.0.0"


def test_nobody_kills_the_server_before_its_accepted_calls_are_finished() -> None:
    listen = ServerConfig().listen
    for name in ("Dockerfile", "Dockerfile.cuda", "longhand.service"):
        found = re.search(
            r"(?:--stop-timeout |^TimeoutStopSec=)(\d+)", (_DEPLOY / name).read_text(), re.MULTILINE
        )
        assert found, name
        assert int(found[1]) >= listen.drain_delay_s + listen.grace_s + 5, name


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda", "Dockerfile.ray", "longhand.service"])
def test_deployments_tell_nobody_about_their_use(name: str) -> None:
    assert re.search(
        r"^(ENV |Environment=).*\bORT_DISABLE_TELEMETRY=1", (_DEPLOY / name).read_text(), re.MULTILINE
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("credentials", [False, True])
def test_the_unit_is_sound(tmp_path: Path, credentials: bool) -> None:
    text = (_DEPLOY / "longhand.service").read_text()
    unit = tmp_path / "longhand.service"
    if credentials:
        text = re.sub(r"^#(?=LoadCredential=|Environment=)", "", text, flags=re.MULTILINE)
        loaded = re.findall(r"^LoadCredential=([\w-]+):", text, re.MULTILINE)
        passed = dict(re.findall(r"LONGHAND_(\w+)=%d/([\w-]+)", text))
        assert sorted(passed.values()) == sorted(loaded) != []
        assert {name.lower() for name in passed} <= {item.name for _, item in settings()}
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert not complaints
