"""A server of this machine that plays Google Cloud Storage."""

import contextlib
import http.server
import itertools
import os
from collections.abc import Iterator
from http import HTTPStatus

# Read when gcsfs is imported: it would ask a second service, which is not played.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

import fsspec
import pytest
from etils.epath import backend
from gcp_storage_emulator import server, storage
from gcp_storage_emulator.handlers import objects

_numbers = itertools.count(1)
_MATCH = {"ifGenerationMatch": True, "ifGenerationNotMatch": False}


@contextlib.contextmanager
def serve(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves an empty bucket; yields its address."""
    # Orbax opens more connections at once than Python's server lets wait.
    patch.setattr(http.server.HTTPServer, "request_queue_size", 256)
    # Clients go without a word: gcsfs takes the faster of two answers.
    patch.setattr(http.server.HTTPServer, "handle_error", lambda *args: None)
    _play_generations(patch)
    name = f"bucket{next(_numbers)}"
    played = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=name)
    played.start()
    host, port = played._api._httpd.server_address
    for variable in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        patch.setenv(variable, f"http://{host}:{port}")
    patch.setenv("NO_GCE_CHECK", "true")  # no search for credentials
    try:
        yield f"gs://{name}"
    finally:
        forget()
        played.stop()


def forget() -> None:
    """Ends the connections of this process: they are those of one server."""
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()


def _play_generations(patch: pytest.MonkeyPatch) -> None:
    """Every object has a generation of its own, which answers tell, and requests may
    depend on it. Tensorstore needs both; the package plays neither."""
    create = storage.Storage.create_file

    def create_file(self, bucket, name, content, about, *rest):
        about["generation"] = str(next(_numbers))
        return create(self, bucket, name, content, about, *rest)

    def conditional(method, handler):
        def handle(request, response, storage, *rest):
            query, bucket = request.query, request.params["bucket_name"]
            name = request.params.get("object_id") or query.get("name", [""])[0]
            about = storage.objects.get(bucket, {}).get(name, {})
            now = about.get("generation", "0")
            if about or method != "GET":
                for key, wanted in _MATCH.items():
                    if key in query and (query[key][0] == now) != wanted:
                        _ = request.data  # or the client's connection breaks
                        response.status = HTTPStatus.PRECONDITION_FAILED
                        if method == "GET" and not wanted:
                            response.status = HTTPStatus.NOT_MODIFIED
                        return
            response["x-goog-generation"] = now
            handler(request, response, storage, *rest)

        return handle

    patch.setattr(storage.Storage, "create_file", create_file)
    known = (objects.get, objects.download, objects.insert, objects.delete)
    for _, handlers in server.HANDLERS:
        for method, handler in list(handlers.items()):
            if handler in known:
                patch.setitem(handlers, method, conditional(method, handler))
