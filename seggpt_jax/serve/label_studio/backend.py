"""A project's next tasks, segmented as its accepted annotations show it."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool

from seggpt_jax.config import counted, shorten
from seggpt_jax.pictures.images import label_png
from seggpt_jax.serve.label_studio import regions
from seggpt_jax.serve.label_studio.interface import Interface
from seggpt_jax.serve.label_studio.media import Media
from seggpt_jax.serve.label_studio.projects import Accepted, Projects
from seggpt_jax.serve.service import Example, Known, Service
from seggpt_jax.serve.uploads import Upload

logger = logging.getLogger(__name__)

_TOGETHER = 8  # tasks of a request that are worked on at once
Prediction = Mapping[str, Any]


class Settings(NamedTuple):
    """media: the folder of the tasks' images, or None. keep: the folder where accepted
    annotations are kept for the next start, or None. examples: how many of them are
    prompts at once."""

    media: Path | None = None
    keep: Path | None = None
    examples: int = 5

    def check(self) -> None:
        """Raises ValueError that names an option which cannot be used."""
        if self.media is not None and not self.media.is_dir():
            raise ValueError(f"--label-studio-media {self.media}: no such folder")
        if self.keep is not None and self.keep.exists() and not self.keep.is_dir():
            raise ValueError(f"--label-studio-keep {self.keep} is no folder")
        if self.examples < 1:
            raise ValueError(
                f"--label-studio-examples {self.examples}: must be at least 1"
            )


class _Chosen(NamedTuple):
    """The annotations that are prompts, by their numbers. version: what Label Studio
    calls the model with these prompts; a prediction of another version is old."""

    annotations: Mapping[int, Accepted]
    version: str


class Backend:
    """model: its name. All methods are for one event loop, and raise ValueError or
    HTTPException for what cannot be used."""

    def __init__(self, service: Service, model: str, settings: Settings):
        limits = service.limits
        self.projects = Projects(limits.sets, settings.keep)
        self._media = Media(settings.media, limits.megabytes)
        self._service, self._model = service, model
        self._count = min(settings.examples, limits.prompts)
        self._ids: OrderedDict[str, str] = OrderedDict()  # version -> id of its set

    async def version(self, key: str, interface: Interface) -> str:
        """What the model of a project is called now."""
        return (await self._choose(key, interface)).version

    async def prepare(self, key: str, interface: Interface) -> int:
        """Encodes the prompts of a project. Returns their number."""
        chosen = await self._choose(key, interface)
        if chosen.annotations:
            await self._encode(chosen, interface)
        return len(chosen.annotations)

    async def predict(
        self, key: str, interface: Interface, tasks: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Prediction | list], list[str], str]:
        """A prediction for every task, faults, and the version. A task with a fault has
        none, which is `[]`, and so have all tasks of a project without annotations."""
        chosen = await self._choose(key, interface)
        if not chosen.annotations:
            return [[] for _ in tasks], [], chosen.version
        known = await self._encode(chosen, interface)

        async def segment(task: Mapping[str, Any]) -> Prediction | str:
            try:
                upload = await self._image(task, interface)
                shown = await self._service.segment(upload, known, objects=True)
                return await run_in_threadpool(
                    regions.answer, shown, interface, chosen.version
                )
            except (ValueError, HTTPException) as error:
                return f"task {task.get('id')}: {_sentence(error)}"

        results: list[Prediction | list] = []
        faults: list[str] = []
        for first in range(0, len(tasks), _TOGETHER):
            together = map(segment, tasks[first : first + _TOGETHER])
            for found in await asyncio.gather(*together):
                if isinstance(found, str):
                    logger.warning("%s", found)
                    faults.append(found)
                results.append([] if isinstance(found, str) else found)
        if len(faults) == len(tasks):
            raise ValueError(shorten(faults, 3))
        return results, faults, chosen.version

    async def mark(
        self,
        key: str,
        interface: Interface,
        task: Mapping[str, Any],
        marks: Sequence[regions.Region],
    ) -> tuple[Prediction, str]:
        """The mask of an object that a smart tool marks, and the version."""
        version = await self.version(key, interface)
        upload = await self._image(task, interface)

        def find() -> Prediction:
            mask, name = regions.smart(marks, self._service.pixels(upload), interface)
            return regions.answer_mask(mask, name, interface, version)

        return await run_in_threadpool(find), version

    async def _image(self, task: Mapping[str, Any], interface: Interface) -> Upload:
        value = interface.image_of(task.get("data"))
        return await run_in_threadpool(self._media.read, value)

    async def _choose(self, key: str, interface: Interface) -> _Chosen:
        choose = self.projects.choose
        chosen = await run_in_threadpool(choose, key, interface, self._count)
        digest = hashlib.sha256(repr(interface).encode())
        for one in chosen.values():
            digest.update(one.digest())
        name = f"{self._model} {counted(len(chosen), 'example')}"
        return _Chosen(chosen, f"{name} {digest.hexdigest()[:8]}" if chosen else name)

    async def _encode(self, chosen: _Chosen, interface: Interface) -> Known:
        """The set of prompts of a choice. Annotations that cannot be used are left out,
        and named in the log."""
        if chosen.version in self._ids:
            try:
                return await self._service.find(self._ids[chosen.version])
            except HTTPException:  # no longer kept
                del self._ids[chosen.version]
        example = await run_in_threadpool(self._example, chosen, interface)
        known = await self._service.remember(example)
        self._ids[chosen.version] = known.id
        while len(self._ids) > self._service.limits.sets:
            self._ids.popitem(last=False)
        return known

    def _example(self, chosen: _Chosen, interface: Interface) -> Example:
        images, masks, faults = [], [], []
        for number, one in chosen.annotations.items():
            try:
                upload = self._media.read(one.image)
                drawn = regions.draw(
                    one.regions, self._service.pixels(upload), interface
                )
            except (ValueError, HTTPException) as error:
                faults.append(f"annotation {number}: {_sentence(error)}")
                logger.warning("%s", faults[-1])
                continue
            images.append(upload)
            masks.append((f"annotation {number}", label_png(drawn)))
        if not images:
            raise ValueError(shorten(faults, 3))
        names = {label: name for name, label in interface.labels.items()}
        return Example(images, masks, "category", names)


def _sentence(error: ValueError | HTTPException) -> str:
    return error.detail if isinstance(error, HTTPException) else str(error)
