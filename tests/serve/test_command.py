"""`seggpt serve` as a process: what stops it before it starts, and SIGTERM."""

import contextlib
import importlib.util
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import webbrowser
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from seggpt_jax.cli import command
from seggpt_jax.serve import run
from seggpt_jax.serve.run import bind
from seggpt_jax.weights import release
from tests.conftest import REPOSITORY
from tests.serve.test_api import IMAGES, MASK, PARAMS, PROMPT, expected, png
from tests.support.models import SMALL


def stopped(capsys, monkeypatch, *argv):
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    with pytest.raises(SystemExit) as stop:
        command.main(["serve", "--model", "nowhere", *argv])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_other_machines_need_a_token(capsys, monkeypatch):
    monkeypatch.delenv("SEGGPT_TOKEN", raising=False)
    for host in ("0.0.0.0", "192.168.1.7", "::", "a.example"):
        assert stopped(capsys, monkeypatch, "--host", host) == (
            f"error: --host {host} lets other machines in: give a --token, or set "
            "SEGGPT_TOKEN\n"
        )


def test_a_port_in_use_is_named(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert stopped(capsys, monkeypatch, "--port", port) == (
            f"error: 127.0.0.1:{port} cannot be taken (Address already in use): choose "
            "another --port\n"
        )


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_named(capsys, monkeypatch, port):
    assert stopped(capsys, monkeypatch, "--port", str(port)) == (
        f"error: --port {port}: 0 to 65535 is wanted\n"
    )


def test_limits_out_of_range_are_named(capsys, monkeypatch):
    text = stopped(capsys, monkeypatch, "--queue", "0")
    assert text == "error: limit queue = 0: must be at least 1\n"


def test_folders_of_label_studio_that_cannot_be_used_are_named(
    capsys, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    gone, file = str(tmp_path / "gone"), str(tmp_path / "file")
    for options, text in (
        (["--label-studio-media", gone],
         f"--label-studio-media {gone}: no such folder"),
        (["--label-studio-keep", file], f"--label-studio-keep {file} is no folder"),
        (["--label-studio-examples", "0"],
         "--label-studio-examples 0: must be at least 1"),
        (["--label-studio-media", "gs://bucket"], "--label-studio-media"),
    ):  # fmt: skip
        assert f"error: {text}" in stopped(capsys, monkeypatch, *options)


def test_what_must_be_installed_is_named(capsys, monkeypatch):
    there = importlib.util.find_spec

    def find_spec(name, *more):
        return None if name == "uvicorn" else there(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert stopped(capsys, monkeypatch) == (
        "error: the server needs uvicorn: pip install 'seggpt_jax[serve]'\n"
    )


def test_addresses_of_both_families_are_bound():
    with bind("127.0.0.1", 0) as four:
        assert four.getsockname()[1]
    if socket.has_ipv6:
        with bind("::1", 0) as six:
            assert six.family == socket.AF_INET6


@pytest.mark.parametrize("name", ["serve", "demo"])
def test_the_demo_opens_the_page(tmp_path, monkeypatch, capsys, name):
    opened, served = queue.Queue(), []
    monkeypatch.setattr(webbrowser, "open", opened.put)
    monkeypatch.setattr(run, "serve", lambda *given: served.append(given))
    monkeypatch.setattr(command, "cache_compiled", lambda: "elsewhere")
    release.export_params(str(tmp_path / "model"), PARAMS, {**SMALL.__dict__})
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--model", str(tmp_path / "model"), "--port", "0"])
    assert stop.value.code == 0 and len(served) == 1
    url = capsys.readouterr().out.split()[0]
    assert url.startswith("http://127.0.0.1:") and url.endswith("/")
    if name == "demo":
        assert opened.get(timeout=20) == url
    assert opened.empty()


def form(*files):
    """The body of a form, and its content type."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="f.png"'
        "\r\n\r\n".encode()
        + content
        + b"\r\n"
        for field, content in files
    ]
    return b"".join(parts) + b"--x--\r\n", "multipart/form-data; boundary=x"


@pytest.mark.slow
def test_sigterm_finishes_what_runs(tmp_path):
    """A request that has begun is answered, a new one is not taken, and the status is
    0."""
    release.export_params(str(tmp_path / "model"), PARAMS, {**SMALL.__dict__})
    process = subprocess.Popen(
        [sys.executable, "-m", "seggpt_jax.cli", "serve", "--model",
         tmp_path / "model", "--port", "0"],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    try:
        url = urlsplit(process.stdout.readline().split()[0])
        body, kind = form(("image", png(IMAGES[0])), ("prompt_image", PROMPT),
                          ("prompt_mask", MASK))  # fmt: skip
        asking = HTTPConnection(url.hostname, url.port)
        asking.putrequest("POST", "/api/segment")
        asking.putheader("Content-Type", kind)
        asking.putheader("Content-Length", str(len(body)))
        asking.endheaders(body[:100])
        with contextlib.closing(HTTPConnection(url.hostname, url.port)) as checking:
            checking.request("GET", "/health")
            assert json.loads(checking.getresponse().read()) == {"status": "UP"}
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        with pytest.raises(OSError):
            socket.create_connection((url.hostname, url.port), 1)
        asking.send(body[100:])
        answer = asking.getresponse()
        assert answer.status == 200 and answer.read() == expected(IMAGES[0])
        asking.close()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
