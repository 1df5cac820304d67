"""What the server does, apart from HTTP: sets of prompts by id, and results."""

import asyncio
import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool

from seggpt_jax.inference import Predictor, PromptSet
from seggpt_jax.prompts import clicks
from seggpt_jax.results.categories import Categories, categories
from seggpt_jax.results.forms import Shown
from seggpt_jax.results.objects import find
from seggpt_jax.serve.gate import Limits
from seggpt_jax.serve.uploads import Upload, open_pictures
from seggpt_jax.serve.worker import Worker


class Example(NamedTuple):
    """Prompts as a client sends them. names: label -> class, or nothing."""

    images: Sequence[Upload]
    masks: Sequence[Upload]
    kind: str
    names: Mapping[int, str]

    def id(self) -> str:
        """Known by its content: the same prompts have one id, and are encoded once."""
        digest = hashlib.sha256(json.dumps([self.kind, [*self.names.items()]]).encode())
        for _, content in [*self.images, *self.masks]:
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()[:32]


class Known(NamedTuple):
    """A set of prompts that is kept, and the categories of its labels."""

    id: str
    prompts: PromptSet
    categories: Categories


class Service:
    """A predictor for many clients. Its coroutines are for one event loop."""

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor, self.limits = predictor, limits
        self.worker = Worker(predictor)
        # In the order of their last use; those still being encoded are there too.
        self._sets: OrderedDict[str, asyncio.Future[Known]] = OrderedDict()

    async def remember(self, example: Example) -> Known:
        """Encodes prompts, or finds them encoded. Raises HTTPException for pictures
        that cannot be used."""
        if len(example.images) > self.limits.prompts:
            raise HTTPException(
                413,
                f"{len(example.images)} prompts are more than {self.limits.prompts}, "
                "this server's limit",
            )
        key = await run_in_threadpool(example.id)
        if key not in self._sets:
            self._sets[key] = asyncio.ensure_future(self._encode(key, example))
        self._sets.move_to_end(key)
        while len(self._sets) > self.limits.sets:
            self._sets.popitem(last=False)
        encoding = self._sets[key]
        try:
            return await asyncio.shield(encoding)
        except Exception:
            if self._sets.get(key) is encoding:
                del self._sets[key]
            raise

    async def find(self, key: str) -> Known:
        """Raises HTTPException 404 for an id that is unknown, or no longer kept."""
        if key not in self._sets:
            raise HTTPException(
                404,
                f"prompts {key!r} are not known, or no longer: post them again to "
                "/api/prompts",
            )
        self._sets.move_to_end(key)
        return await asyncio.shield(self._sets[key])

    async def segment(
        self, upload: Upload, known: Known, objects: bool, split: bool = False
    ) -> Shown:
        """Segments a picture. objects: whether they are wanted too; split: as of
        `results.objects.find`. Raises HTTPException for a picture that cannot be
        used."""
        with _naming_faults():
            image = await run_in_threadpool(self.pixels, upload)
        result = await asyncio.wrap_future(self.worker.segment(image, known.prompts))
        found = await run_in_threadpool(find, result, split) if objects else []
        return Shown(upload[0], image, result, found, known.categories)

    def pixels(self, upload: Upload) -> np.ndarray:
        """A picture uint8 `[h, w, 3]`, for any thread. Raises ValueError or
        HTTPException for one that cannot be used."""
        (picture,) = open_pictures([upload], self.limits.megapixels)
        return self.predictor.read_image(picture, upload[0])

    async def mask(
        self,
        uploads: Sequence[Upload],
        box: str | None,
        points: Sequence[str],
    ) -> np.ndarray:
        """The mask bool `[h, w]` of an object that is marked in the first picture, by
        `clicks.read_box` and `clicks.read_point`; the second picture, if there is one,
        has strokes. Raises HTTPException for marks that cannot be used."""

        def find():
            image, *strokes = open_pictures(uploads, self.limits.megapixels)
            corners = box and clicks.read_box(box)
            marks = [clicks.read_point(text) for text in points]
            shown = self.predictor.read_image(image, uploads[0][0])
            return clicks.example(shown, corners, marks, *strokes).target

        with _naming_faults():
            return await run_in_threadpool(find)

    def close(self) -> None:
        self.worker.close()

    async def _encode(self, key: str, example: Example) -> Known:
        def read():
            pictures = open_pictures(
                [*example.images, *example.masks], self.limits.megapixels
            )
            count = len(example.images)
            shown = [
                self.predictor.read_image(picture, name)
                for picture, (name, _) in zip(pictures, example.images, strict=False)
            ]
            return shown, pictures[count:]

        def encode():
            prompts = self.predictor.encode_prompts(
                shown, masks, example.kind, example.names
            )
            of = categories(prompts.palette, prompts.kind, example.names)
            return Known(key, prompts, of)

        with _naming_faults():
            shown, masks = await run_in_threadpool(read)
            return await asyncio.wrap_future(self.worker.call(encode))


@contextlib.contextmanager
def _naming_faults() -> Iterator[None]:
    """Gives the library's sentence about a bad picture or mask as status 422."""
    try:
        yield
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
