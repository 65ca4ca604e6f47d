"""The gateway of the web page over HTTP."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.server_process import ServerProcess
from helpers.toy_model import draw_image
from helpers.web_process import WebProcess, free_port, running_web
from longhand_client import LonghandError
from longhand_web.__main__ import _listen


@pytest.fixture(scope="module")
def web(server: ServerProcess) -> Iterator[WebProcess]:
    with running_web(server.address, "--max-image-mib", "1") as running:
        yield running


def reason(body: bytes) -> str:
    return str(json.loads(body)["error"]["reason"])


def test_the_page_is_locked_down(web: WebProcess) -> None:
    page = web.ask("/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    # One page without requests to anywhere else, and without code inside its markup.
    for path in ("/", "/app.js", "/api.js", "/pad.js", "/reading.js", "/style.css"):
        text = web.ask(path).body.decode()
        assert "https://" not in text
        assert "http://" not in text
    assert "<script>" not in page.body.decode()
    assert " style=" not in page.body.decode()


def test_status(web: WebProcess) -> None:
    status = json.loads(web.ask("/api/status").body)
    assert status["ready"]
    assert status["model"]["name"] == "toy"
    assert status["limits"]["max_image_bytes"] == 1024 * 1024


def test_a_line_is_read(web: WebProcess) -> None:
    answer = web.ask("/api/recognize", method="POST", body=draw_image("de ab"))
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    reading = json.loads(answer.body)
    assert reading["text"] == "de ab"
    assert [word["text"] for word in reading["words"]] == ["de", "ab"]
    assert reading["alternatives"][0]["text"] == "de ab"
    assert 0 <= reading["words"][0]["x_start"] < reading["words"][1]["x_end"] <= reading["image_width"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_line_in_a_form_is_read(web: WebProcess, tmp_path: Path) -> None:
    line = tmp_path / "line.png"
    line.write_bytes(draw_image("de ab"))
    command = [
        "curl",
        "--silent",
        "--show-error",
        "-F",
        "note=x",
        "-F",
        f"file=@{line}",
        f"{web.url}api/recognize",
    ]
    answer = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert json.loads(answer.stdout)["text"] == "de ab"


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_form_without_a_file(web: WebProcess, kind: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nabc\r\n--x--\r\n'
    answer = web.ask("/api/recognize", method="POST", body=body, headers={"content-type": kind})
    assert (answer.status, reason(answer.body)) == (400, "INVALID_REQUEST")
    assert "curl -F" in answer.body.decode()


def test_health(web: WebProcess) -> None:
    answer = web.ask("/health")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "SERVING"})


def test_options(web: WebProcess) -> None:
    query = "/api/recognize?decoder=beam&lm_weight=0&alternatives=3"
    reading = json.loads(web.ask(query, method="POST", body=draw_image("ab")).body)
    assert reading["text"] == "ab"
    assert 1 <= len(reading["alternatives"]) <= 3


@pytest.mark.parametrize(
    "query", ["decoder=best", "lm_weight=x", "lm_weight=nan", "lm_weight=-1", "alternatives=1000"]
)
def test_options_that_make_no_sense(web: WebProcess, query: str) -> None:
    answer = web.ask(f"/api/recognize?{query}", method="POST", body=draw_image("ab"))
    assert answer.status == 400
    assert query.split("=")[0] in json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"no image", draw_image("ab")[:60]])
def test_bad_images_are_named_as_such(web: WebProcess, body: bytes) -> None:
    answer = web.ask("/api/recognize", method="POST", body=body)
    assert answer.status == 400
    assert reason(answer.body) == "INVALID_IMAGE"


def test_large_uploads_are_cut_off(web: WebProcess) -> None:
    answer = web.ask("/api/recognize", method="POST", body=bytes(1024 * 1024 + 1))
    assert (answer.status, reason(answer.body)) == (413, "IMAGE_TOO_LARGE")


def test_an_upload_without_a_length_is_cut_off_too(web: WebProcess) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as connection:
        connection.sendall(
            b"POST /api/recognize HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        for _ in range(17):
            connection.sendall(chunk)
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "path", ["/..%2f..%2fetc/passwd", "/static/app.js", "/app.js/", "/gateway.py", "/api/other", "//app.js"]
)
def test_there_is_nothing_else(web: WebProcess, path: str) -> None:
    assert web.ask(path).status in (404, 307)
    assert web.ask("/api/recognize").status == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_not_use_it(web: WebProcess, site: str) -> None:
    headers = {"sec-fetch-site": site}
    answer = web.ask("/api/recognize", method="POST", body=draw_image("ab"), headers=headers)
    assert (answer.status, reason(answer.body)) == (403, "OTHER_SITE")


def test_a_service_that_is_not_there_yet(toy_bundle: object) -> None:
    with running_web(f"127.0.0.1:{free_port()}") as web:
        status = json.loads(web.ask("/api/status").body)
        assert not status["ready"]
        health = web.ask("/health")
        assert (health.status, json.loads(health.body)["status"]) == (503, "UNKNOWN")
        started = time.monotonic()
        answer = web.ask("/api/recognize", method="POST", body=draw_image("ab"))
        assert answer.status == 503
        assert time.monotonic() - started < 5


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longhand_web", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("arguments", [(), ("--local",)])
def test_a_port_that_is_taken(web: WebProcess, arguments: tuple[str, ...]) -> None:
    outcome = start("--port", str(web.port), *arguments)
    assert (outcome.returncode, outcome.stdout) == (1, "")
    expected = f"longhand_web: cannot listen on 127.0.0.1 port {web.port}: Address already in use\n"
    assert outcome.stderr == expected


def test_every_address_of_a_name_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    known = ["127.0.0.1", "127.0.0.1", "192.0.2.1", "127.0.0.2"]  # the third is nobody's
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    listeners = _listen("localhost", port)
    assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.1", "127.0.0.2"]
    found.reverse()
    with pytest.raises(
        LonghandError, match=f"cannot listen on localhost port {port}: Address already in use"
    ):
        _listen("localhost", port)
    for listener in listeners:
        listener.close()
    found[:] = found[1:2]
    with pytest.raises(LonghandError, match="Cannot assign requested address"):
        _listen("localhost", port)


@pytest.mark.parametrize("size", ["-1", "0", "17", "x"])
def test_sizes_that_make_no_sense(size: str) -> None:
    outcome = start("--max-image-mib", size)
    assert outcome.returncode == 2
    assert f"got {size}, need 1 to 16" in outcome.stderr


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [("/api/recognize", 405, "METHOD_NOT_ALLOWED"), ("/nope", 404, "NOT_FOUND")],
)
def test_every_failure_is_json(web: WebProcess, path: str, status: int, expected: str) -> None:
    answer = web.ask(path)
    assert (answer.status, reason(answer.body)) == (status, expected)
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


def test_parameters_that_nobody_knows_are_refused(web: WebProcess) -> None:
    answer = web.ask("/api/recognize?alternatves=3", method="POST", body=draw_image("ab"))
    assert answer.status == 400
    assert "no parameter 'alternatves'" in json.loads(answer.body)["error"]["message"]


def test_a_service_of_its_own_has_no_address() -> None:
    outcome = start("--local", "--address", "localhost:1")
    assert outcome.returncode == 2
    assert "leave out --address" in outcome.stderr


def test_the_page_is_there_though_nobody_can_be_told_so(server: ServerProcess) -> None:
    port = free_port()
    command = (
        f"exec {sys.executable} -m longhand_web --address {server.address} --port {port} >/dev/full 2>&1"
    )
    process = subprocess.Popen(["bash", "-c", command])
    web = WebProcess(port)
    try:
        web.wait(process)
        assert web.ask("/health").status == 200
    finally:
        process.terminate()
        process.wait(15)
