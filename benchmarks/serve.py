"""`seggpt serve` under load, against a plain loop over `predictor()`: JSON.

    python -m benchmarks.serve --model=mini --out=benchmarks/results/serve.jsonl

The server is a process of its own. Clients ask at once, and every tenth request is
broken: a body that is cut, a bomb, a picture of 10,000 x 10,000, a mask of the wrong
size, paths in place of pictures and of prompts, a wrong token, a body that is too long.
`wrong` counts answers that are not what `predictor()` gives, or not the status of the
fault; `lost` those that did not come. `p50_ms` and `p99_ms` are of the good ones.
`images_per_s` are those of good requests, broken ones being answered meanwhile;
`loop_images_per_s` those of the loop, in this process, while nobody asks: half of it
before and half after. `rss_mib` is the server's memory after each tenth of the
requests; the first tenth warms it up, and counts for nothing else. Ends with status 1
where an answer is wrong or lost.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from benchmarks.rows import parse, report
from seggpt_jax.inference import Predictor, PromptSet
from seggpt_jax.results.categories import Categories
from seggpt_jax.results.forms import FORMS, Shown

TOKEN = "benchmark"
SIZES = ((192, 192), (240, 320), (480, 640), (427, 640))  # of queries, rows first
SETS = 3  # of prompts; their queries come mixed
QUERIES = 8  # pictures for each set
BOUNDARY = "benchmark"
_LONG = 65_000_000  # bytes, above the server's limit


class Request(NamedTuple):
    """A request that is ready to be sent, and the answer that is right: its status,
    and for good ones its body. cut: bytes of the body that are sent before the
    connection is closed; None for all."""

    path: str
    body: bytes
    status: int
    answer: bytes | None = None
    token: str = TOKEN
    cut: int | None = None


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=1)
    return file.getvalue()


def scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 `[h, w, 3]` of smooth noise with two discs, and their labels."""
    rng = np.random.default_rng(seed)
    height, width = size
    noise = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    image = np.array(noise.resize((width, height), Image.Resampling.BICUBIC))
    labels = np.zeros(size, np.uint8)
    y, x = np.ogrid[:height, :width]
    for label in (1, 2):
        row, column = rng.uniform(0.3, 0.7, 2) * size
        disc = (y - row) ** 2 + (x - column) ** 2 < (
            rng.uniform(0.1, 0.2) * height
        ) ** 2
        image[disc], labels[disc] = rng.integers(0, 256, 3), label
    return image, labels


def form(*parts: tuple[str, str | None, bytes | str]) -> bytes:
    """A multipart body of (field, name of the file, content); fields have no name."""
    lines = []
    for field, name, content in parts:
        file = "" if name is None else f'; filename="{name}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{file}'
        body = content.encode() if isinstance(content, str) else content
        lines += [head.encode(), b"\r\n\r\n", body, b"\r\n"]
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def empty_png(side: int) -> bytes:
    """A grey PNG of side x side black pixels: few bytes, many pixels."""
    packed, rows = zlib.compressobj(9), bytes(side + 1)
    data = b"".join(packed.compress(rows) for _ in range(side)) + packed.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
              (b"IDAT", data), (b"IEND", b""))  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body
        + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )  # fmt: skip


def broken(id: str, image: bytes, labels: np.ndarray) -> dict[str, Request]:
    """A request for each fault, with the status that is its answer."""
    good = form(("prompts", None, id), ("image", "a.png", image))
    narrow = png(labels[:, :-40])
    segment, prompts = "/api/segment", "/api/prompts"

    def asked(*parts: tuple[str, str | None, bytes | str]) -> bytes:
        return form(("prompts", None, id), *parts)

    return {
        "cut body": Request(segment, good, 0, cut=len(good) // 2),
        "cut picture": Request(
            segment, asked(("image", "a.png", image[: len(image) // 2])), 422
        ),
        "bomb": Request(segment, asked(("image", "a.png", empty_png(20_000))), 413),
        "large picture": Request(
            segment, asked(("image", "a.png", empty_png(10_000))), 413
        ),
        "wrong size": Request(
            prompts, form(("image", "a.png", image), ("mask", "b.png", narrow)), 422
        ),
        "path for a picture": Request(
            segment, asked(("image", None, "/etc/passwd")), 422
        ),
        "path for prompts": Request(
            segment,
            form(("prompts", None, "../../etc/passwd"), ("image", "a.png", image)),
            404,
        ),
        "path as a name": Request(
            segment, asked(("image", "../../etc/passwd", b"no picture")), 415
        ),
        "no mask": Request(
            prompts, form(("image", "a.png", image), ("mask", "b.png", b"")), 415
        ),
        "wrong token": Request(segment, good, 401, token="wrong"),
        "too long": Request(segment, asked(("image", "a.png", bytes(_LONG))), 413),
    }


class Server:
    """`seggpt serve` in a process of its own."""

    def __init__(self, model: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "seggpt_jax.cli", "serve", "--model", model,
             "--port", "0"],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "SEGGPT_TOKEN": TOKEN},
        )  # fmt: skip
        assert self.process.stdout is not None
        url = urlsplit(self.process.stdout.readline().split()[0])
        self.host, self.port = str(url.hostname), int(url.port or 0)

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate()


class Client:
    """One connection, which is opened again where a request breaks it."""

    def __init__(self, server: Server):
        self._server = server
        self._connection = HTTPConnection(server.host, server.port, timeout=600)

    def send(self, request: Request) -> tuple[int, bytes]:
        """The status and the body of the answer; 0 where the client hung up."""
        if request.cut is not None:
            with socket.create_connection(
                (self._server.host, self._server.port)
            ) as own:
                head = (f"POST {request.path} HTTP/1.1\r\nHost: {self._server.host}\r\n"
                        f"Authorization: Bearer {request.token}\r\nContent-Type: "
                        f"multipart/form-data; boundary={BOUNDARY}\r\n"
                        f"Content-Length: {len(request.body)}\r\n\r\n")  # fmt: skip
                own.sendall(head.encode() + request.body[: request.cut])
            return 0, b""
        asking = self._connection
        asking.putrequest("POST", request.path)
        asking.putheader("Authorization", f"Bearer {request.token}")
        asking.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        asking.putheader("Content-Length", str(len(request.body)))
        asking.endheaders(request.body)
        answer = asking.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


class Run(NamedTuple):
    """What clients saw. seconds: of every good request."""

    elapsed: float
    seconds: list[float]
    wrong: list[str]
    lost: list[str]


def ask(server: Server, asked: Sequence[tuple[str, Request]], clients: int) -> Run:
    """Sends all requests by so many clients at once; each takes the next one."""
    todo, lock = iter(asked), threading.Lock()
    seconds: list[float] = []
    wrong: list[str] = []
    lost: list[str] = []

    def work() -> None:
        client = Client(server)
        while True:
            with lock:
                taken = next(todo, None)
            if taken is None:
                return client.close()
            name, request = taken
            begin = time.perf_counter()
            try:
                status, body = client.send(request)
            except OSError as error:
                lost.append(f"{name}: {error!r}")
                client.close()
                client = Client(server)
                continue
            if request.answer is not None:
                seconds.append(time.perf_counter() - begin)
            right = request.answer is None or body == request.answer
            if status != request.status or not right:
                wrong.append(f"{name}: {status} {body[:200]!r}")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Run(time.perf_counter() - begin, seconds, wrong, lost)


class Asked(NamedTuple):
    """A set of prompts and its pictures. good: requests with the right answers."""

    prompts: PromptSet
    pictures: list[bytes]
    good: list[Request]


def prepare(
    server: Server, predictor: Predictor
) -> tuple[list[Asked], dict[str, Request]]:
    """The sets of prompts, which the server then knows, and the broken requests."""
    sets = list[Asked]()
    for number in range(SETS):
        image, labels = scene(1000 + number, (240, 320))
        parts = ("image", "a.png", png(image)), ("mask", "b.png", png(labels))
        # A connection of its own: the server ends idle ones.
        with contextlib.closing(Client(server)) as client:
            asked = Request("/api/prompts", form(*parts), 200)
            status, body = client.send(asked)
        if status != 200:
            raise RuntimeError(f"prompts were not taken: {body.decode()}")
        id = json.loads(body)["id"]
        prompts = predictor.encode_prompts(image, labels)
        pictures, good = [], []
        for query in range(QUERIES):
            seed = QUERIES * number + query
            picture, _ = scene(seed, SIZES[seed % len(SIZES)])
            shown = Shown("", picture, predictor(picture, prompts), [],
                          Categories({}, {}))  # fmt: skip
            pictures.append(png(picture))
            body = form(("prompts", None, id), ("image", "q.png", pictures[-1]))
            right = FORMS["segments"].content(shown)
            good.append(Request("/api/segment", body, 200, right))
        sets.append(Asked(prompts, pictures, good))
    faults = broken(id, pictures[0], labels)
    return sets, faults


def loop(predictor: Predictor, sets: Sequence[Asked], count: int) -> float:
    """Seconds of a plain loop over so many pictures."""
    pairs = [(picture, one.prompts) for one in sets for picture in one.pictures]
    begin = time.perf_counter()
    for picture, prompts in itertools.islice(itertools.cycle(pairs), count):
        predictor(Image.open(io.BytesIO(picture)), prompts)
    return time.perf_counter() - begin


def measure(model: str, count: int, clients: int, seed: int = 0) -> dict[str, Any]:
    predictor = Predictor.from_pretrained(model)
    server = Server(model)
    try:
        sets, faults = prepare(server, predictor)
        good = [request for one in sets for request in one.good]
        names = list(faults)
        asked: list[tuple[str, Request]] = []
        for number in range(count):
            if number % 10 == 9:
                name = names[number // 10 % len(names)]
                asked.append((name, faults[name]))
            else:
                asked.append(("good", good[number % len(good)]))
        np.random.default_rng(seed).shuffle(asked)
        share = len(good) * max(1, count // 4 // len(good))
        before = loop(predictor, sets, share)
        tenth = max(1, count // 10)
        ask(server, asked[:tenth], clients)
        rss, parts = [server.rss_mib()], []
        for first in range(tenth, count, tenth):
            parts.append(ask(server, asked[first : first + tenth], clients))
            rss.append(server.rss_mib())
        after = loop(predictor, sets, share)
    finally:
        server.close()
    seconds = sorted(itertools.chain.from_iterable(part.seconds for part in parts))
    rate = len(seconds) / sum(part.elapsed for part in parts)
    plain = 2 * share / (before + after)
    return {
        "requests": count,
        "broken": dict(Counter(name for name, _ in asked if name != "good")),
        "clients": clients,
        "wrong": [line for part in parts for line in part.wrong],
        "lost": [line for part in parts for line in part.lost],
        "p50_ms": round(1000 * statistics.median(seconds), 1),
        "p99_ms": round(1000 * seconds[int(0.99 * len(seconds))], 1),
        "images_per_s": round(rate, 2),
        "loop_images_per_s": round(plain, 2),
        "ratio": round(rate / plain, 3),
        "rss_mib": [round(each) for each in rss],
    }


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for _ in range(args.repeats):
        row = measure(args.model, args.requests, args.clients)
        yield {"benchmark": "serve", "model": args.model, **row}
        if row["wrong"] or row["lost"]:
            sys.exit(f"{len(row['wrong'])} wrong answers, {len(row['lost'])} lost")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file that the rows are appended to")
    args = parse(parser)
    report("benchmarks.serve", rows(args), args.out)


if __name__ == "__main__":
    main()
