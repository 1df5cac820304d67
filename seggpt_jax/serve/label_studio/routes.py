"""The routes of an ML back end of Label Studio: what its server asks and tells."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from seggpt_jax.serve.api import FAULTS
from seggpt_jax.serve.label_studio.backend import Backend
from seggpt_jax.serve.label_studio.interface import Interface, read_interface
from seggpt_jax.serve.label_studio.projects import Accepted, key_of, key_of_event

logger = logging.getLogger(__name__)
router = APIRouter(tags=["Label Studio"], responses=FAULTS)


def _backend(request: Request) -> Backend:
    return request.app.state.label_studio


Asked = Annotated[Backend, Depends(_backend)]


class Setup(BaseModel):
    """What Label Studio sends when a project is connected, and before it asks for
    predictions. Its `hostname` and `access_token` are not used, and not kept."""

    project: str
    label_config: str = Field(alias="schema")


class Context(BaseModel):
    """result: the regions of a smart tool."""

    result: list[dict[str, Any]] = []


class Params(BaseModel):
    context: Context | None = None


class Tasks(BaseModel):
    tasks: list[dict[str, Any]]
    project: str
    label_config: str
    params: Params = Params()


class Event(BaseModel):
    """An event of a project's webhook. Those that are not wanted are ignored."""

    action: str
    project: dict[str, Any] | None = None
    annotation: Any = None
    annotations: list[dict[str, Any]] = []
    task: Any = None
    tasks: list[dict[str, Any]] = []


@router.post("/setup")
async def setup(asked: Setup, backend: Asked) -> dict[str, str]:
    """The version of the model, which is new when the prompts of the project are."""
    with _naming_faults():
        key, interface = key_of(asked.project), read_interface(asked.label_config)
        return {"model_version": await backend.version(key, interface)}


@router.post("/predict")
async def predict(asked: Tasks, backend: Asked) -> JSONResponse:
    """A prediction for every task, or `[]`; with the regions of a smart tool, the mask
    of the object that they mark."""
    with _naming_faults():
        key, interface = key_of(asked.project), read_interface(asked.label_config)
        context = asked.params.context
        if context and context.result and asked.tasks:
            one, version = await backend.mark(
                key, interface, asked.tasks[0], context.result
            )
            return JSONResponse({"results": [one], "model_version": version})
        await run_in_threadpool(_learn, asked.tasks, key, interface, backend)
        results, faults, version = await backend.predict(key, interface, asked.tasks)
        answer = {"results": results, "errors": faults, "model_version": version}
        return await run_in_threadpool(JSONResponse, answer)  # long lists of numbers


@router.post("/webhook", status_code=201)
async def webhook(event: Event, backend: Asked) -> JSONResponse:
    """Takes an annotation that was submitted, changed or deleted."""
    with _naming_faults():
        if event.project is None:  # an event without its payload
            return JSONResponse({"status": "ignored"})
        key = key_of_event(event.project)
        if event.action == "START_TRAINING":
            interface = _interface(event.project)
            count = await backend.prepare(key, interface)
            return JSONResponse({"status": "ok", "examples": count}, 201)
        if await run_in_threadpool(_remember, event, key, backend):
            return JSONResponse({"status": "ok"}, 201)
        return JSONResponse({"status": "ignored"})


def _remember(event: Event, key: str, backend: Backend) -> bool:
    """Whether the event changes the prompts of its project."""
    projects = backend.projects
    if event.action in ("ANNOTATIONS_DELETED", "ANNOTATION_DELETED"):
        gone = event.annotations or [event.annotation]
        projects.forget(key, [_number(one, "annotation") for one in gone])
        return True
    if event.action == "TASKS_DELETED":
        projects.forget(key, tasks=[_number(one, "task") for one in event.tasks])
        return True
    if event.action not in (
        "ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED",
    ):  # fmt: skip
        return False
    interface = _interface(event.project or {})
    for one, task in _pairs(event.annotation, event.task):
        _accept(one, task, key, interface, backend)
    return True


def _learn(
    tasks: list[dict[str, Any]], key: str, interface: Interface, backend: Backend
) -> None:
    """Takes the annotations that tasks bring along: those of before this server."""
    for task in tasks:
        annotations = task.get("annotations")
        for one in annotations if isinstance(annotations, list) else []:
            try:
                _accept(one, task, key, interface, backend)
            except ValueError as error:
                logger.warning("task %s: %s", task.get("id"), error)


def _accept(
    one: Any, task: dict[str, Any], key: str, interface: Interface, backend: Backend
) -> None:
    """Takes an annotation; one that was skipped, or is empty, is forgotten."""
    number, regions = _number(one, "annotation"), one.get("result")
    if one.get("was_cancelled") or not regions:
        backend.projects.forget(key, [number])
        return
    if not isinstance(regions, list) or not all(isinstance(x, dict) for x in regions):
        raise ValueError(f"annotation {number} has no list of regions")
    image = interface.image_of(task.get("data"))
    found = Accepted.of(_number(task, "task"), image, regions)
    backend.projects.accept(key, number, found)


def _pairs(annotations: Any, tasks: Any) -> Iterator[tuple[dict, dict]]:
    """Annotations with their tasks, of an event about one or about many."""
    if isinstance(annotations, dict) and isinstance(tasks, dict):
        yield annotations, tasks
    elif isinstance(annotations, list) and isinstance(tasks, list):
        by_number = {_number(task, "task"): task for task in tasks}
        for one in annotations:
            _number(one, "annotation")
            task = by_number.get(one.get("task"))
            if task is not None:
                yield one, task
    else:
        raise ValueError("the event has no annotation with its task")


def _number(one: Any, what: str) -> int:
    number = one.get("id") if isinstance(one, dict) else None
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"the event's {what} has no number `id`")
    return number


def _interface(project: dict[str, Any]) -> Interface:
    return read_interface(str(project.get("label_config", "")))


@contextmanager
def _naming_faults() -> Iterator[None]:
    """Gives faults a status, and the log their sentence: Label Studio shows only the
    status."""
    try:
        yield
    except ValueError as error:
        logger.warning("Label Studio was refused: %s", error)
        raise HTTPException(422, str(error)) from None
    except HTTPException as error:
        logger.warning("Label Studio was refused: %s", error.detail)
        raise
