"""A stand-in for the Hugging Face hub on loopback, for processes of their own.

It answers as the hub answers huggingface_hub: the list of a repository's files, HEAD
and GET of a file with ETag and X-Repo-Commit, redirects (small files within the hub,
large ones to another host), ranges, and the hub's errors.
"""

import functools
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"  # the one that opens private and gated repositories
_LARGE = (".safetensors", ".pth")  # kept by sha256, on another host
_REPOSITORY = r"/(?P<repository>[^/]+/[^/]+)"
_ROUTES = {
    "list": re.compile(rf"/api/models{_REPOSITORY}(?:/revision/(?P<revision>[^/]+))?"),
    "file": re.compile(rf"{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)"),
    "small": re.compile(
        rf"/api/resolve-cache/models{_REPOSITORY}/(?P<revision>[^/]+)/(?P<file>.+)"
    ),
    "large": re.compile(rf"/large{_REPOSITORY}/(?P<revision>[^/]+)/(?P<file>.+)"),
}


class Repository:
    """The commits of one repository, each a folder, and its branches.

    access: `open`, `gated` (files ask for a token), `private` (everything does) or
    `down` (the hub fails on it).
    """

    def __init__(self, access: str = "open"):
        self.access = access
        self.commits: dict[str, Path] = {}
        self.branches: dict[str, str] = {}

    def push(self, folder: Path, branch: str = "main") -> str:
        """Makes a folder the newest commit of a branch; returns the commit."""
        digest = hashlib.sha1(f"{len(self.commits)} {folder}".encode())
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + str(path.stat().st_size).encode())
        commit = digest.hexdigest()
        self.commits[commit] = folder
        self.branches[branch] = commit
        return commit


class Hub:
    """repositories: by name. cuts: file -> after how many bytes each of its next
    answers breaks off. requests: method, path and range of every request so far."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.cuts: dict[Path, list[int]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def push(
        self, name: str, folder: Path, branch: str = "main", access: str = "open"
    ) -> str:
        repository = self.repositories.setdefault(name, Repository(access))
        return repository.push(folder, branch)

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process that takes this for the hub, with a cache of
        its own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return kept | {
            "HF_ENDPOINT": self.address, "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost", **more,
        }  # fmt: skip


@contextmanager
def serve() -> Iterator[Hub]:
    """A stand-in that listens until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


@functools.cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def log_message(self, *args):
        pass

    def _answer(self):
        path = urlsplit(self.path).path
        asked = self.command, unquote(path), self.headers.get("Range", "")
        self.hub.requests.append(asked)
        for route, pattern in _ROUTES.items():
            if found := pattern.fullmatch(path):
                parts = {k: unquote(v) for k, v in found.groupdict().items() if v}
                return getattr(self, f"_{route}")(**parts)
        self._error(404, "", "no such route")

    def _list(self, repository: str, revision: str = "main"):
        if place := self._place(repository, revision):
            commit, folder = place
            files = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
            content = {"id": repository, "sha": commit, "siblings": files}
            self._send(200, json.dumps(content).encode())

    def _file(self, repository: str, revision: str, file: str):
        place = self._place(repository, revision, files=True)
        if place is None:
            return
        commit, folder = place
        path = folder / file
        told = {"X-Repo-Commit": commit}
        if not path.is_file():
            self._error(404, "EntryNotFound", "Entry not found", told)
        elif path.suffix in _LARGE:
            # Another host, as far as its name goes.
            there = f"http://localhost:{self.hub.port}/large/{repository}/{commit}"
            told |= {
                "ETag": '"of the redirect"', "X-Linked-Etag": f'"{_sha256(path)}"',
                "X-Linked-Size": str(path.stat().st_size),
                "Location": f"{there}/{file}",
            }  # fmt: skip
            self._send(302, b"Found", told)
        else:
            there = f"/api/resolve-cache/models/{repository}/{commit}"
            told["Location"] = f"{there}/{file}"
            self._send(307, b"Temporary Redirect", told)

    def _small(self, repository: str, revision: str, file: str):
        content = (
            self.hub.repositories[repository].commits[revision] / file
        ).read_bytes()
        etag = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        self._send(200, content, {"X-Repo-Commit": revision, "ETag": f'"{etag}"'})

    def _large(self, repository: str, revision: str, file: str):
        assert "Authorization" not in self.headers, "a token left the hub"
        path = self.hub.repositories[repository].commits[revision] / file
        size = path.stat().st_size
        start = int(
            (re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0])[0]
        )
        cuts = self.hub.cuts.get(path, [])
        end = min(size, start + cuts.pop(0)) if cuts else size
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            with path.open("rb") as file:
                file.seek(start)
                while start < end:
                    chunk = file.read(min(1 << 20, end - start))
                    self.wfile.write(chunk)
                    start += len(chunk)
        self.close_connection = end < size

    def _place(
        self, repository: str, revision: str, files: bool = False
    ) -> tuple[str, Path] | None:
        """A revision's commit and folder; None, and an error sent, without one."""
        known = self.hub.repositories.get(repository)
        opened = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if known is None or (known.access == "private" and not opened):
            self._error(401, "RepoNotFound", "Invalid username or password.")
        elif known.access == "down":
            self._error(503, "", "no answer in time")
        elif known.access == "gated" and files and not opened:
            self._error(
                401, "GatedRepo", f"Access to model {repository} is restricted."
            )
        else:
            commit = known.branches.get(revision, revision)
            if commit in known.commits:
                return commit, known.commits[commit]
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _error(
        self, status: int, code: str, message: str, headers: Mapping[str, str] = {}
    ):
        told = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        self._send(status, json.dumps({"error": message}).encode(), {**headers, **told})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] = {}):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
