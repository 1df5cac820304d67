"""Runs the server on an address, until a signal ends it."""

import contextlib
import ctypes
import ipaddress
import signal
import socket
import sys

import uvicorn
from fastapi import FastAPI

_M_ARENA_MAX = -8  # of mallopt, in malloc.h


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Takes an address, port 0 for any free port. Raises OSError that names it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise OSError(
            f"{host}:{port} cannot be taken ({error.strerror}): choose another --port"
        ) from error
    return taken


def share_memory() -> None:
    """Has all threads take memory from one place. Else glibc gives many a place of
    their own, which keeps what pictures once needed: a server's memory would rise for
    thousands of requests. To be called before threads start."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def serve(app: FastAPI, taken: socket.socket) -> None:
    """Answers until SIGTERM or SIGINT; requests that run are finished."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    # uvicorn sends itself the signal again when all is done: it has done its work.
    before = {name: signal.signal(name, signal.SIG_IGN)
              for name in (signal.SIGTERM, signal.SIGINT)}  # fmt: skip
    try:
        server.run([taken])
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
