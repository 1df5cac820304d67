"""The routes of the HTTP interface."""

import contextlib
import dataclasses
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal

import jax
from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, UploadFile
from pydantic import BaseModel, Field, Json, PositiveInt
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from seggpt_jax.pictures.images import label_png
from seggpt_jax.results import coco
from seggpt_jax.results.forms import FORMS, Shown, as_json
from seggpt_jax.serve.service import Example, Known, Service
from seggpt_jax.serve.uploads import FORMATS, Upload, last_part

_PNG, _JSON = "image/png", "application/json"
_RANGES = {_PNG: _PNG, "image/*": _PNG, "*/*": _PNG, _JSON: _JSON,
           "application/*": _JSON}  # fmt: skip
_STATUS = {
    400: "A body that is no form, or the address of another machine",
    401: "No token, or a wrong one",
    403: "Asked by a page of another site",
    413: "More bytes, pixels or prompts than the server takes",
    415: "A file that is no picture of a known format",
    422: "A picture or mask that cannot be used, or a field that is missing",
    429: "Too many requests wait; Retry-After says for how many seconds",
}


class _Fault(BaseModel):
    detail: str


FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": _Fault, "description": text} for status, text in _STATUS.items()
}
_UNKNOWN = {404: {"model": _Fault, "description": "Prompts that are not known"}}
_UNACCEPTABLE = {406: {"model": _Fault, "description": f"Neither {_PNG} nor {_JSON}"}}
router = APIRouter()


def _service(request: Request) -> Service:
    return request.app.state.service


Serving = Annotated[Service, Depends(_service)]
Kind = Annotated[
    Literal["category", "instance"],
    Form(description="what the labels of the masks tell apart"),
]
Names = Annotated[
    Json[dict[PositiveInt, str]] | None,
    Form(description='classes of the labels, as in {"1": "cat"}'),
]


class Model(BaseModel):
    """size: rows and columns that images are resized to. formats: of pictures."""

    model: str
    version: str
    step: int
    size: tuple[int, int]
    device: str
    formats: list[str]
    limits: dict[str, int]


class Prompts(BaseModel):
    """id: for `/api/segment`. palette: label -> colour, red, green and blue."""

    id: str
    kind: str
    prompts: int
    palette: dict[int, tuple[int, int, int]]
    names: dict[int, str] = Field(description="label -> class, where they were given")


@router.get("/health")
async def health() -> dict[str, str]:
    """Answers as long as the server runs."""
    return {"status": "UP"}


@router.get("/api/model")
async def model(request: Request, service: Serving) -> Model:
    """The model, and what the server takes."""
    predictor, platform = service.predictor, jax.default_backend()
    kind = jax.devices()[0].device_kind
    return Model(
        model=request.app.state.model,
        version=version("seggpt_jax"),
        step=predictor.step,
        size=predictor.size,
        device=kind if kind == platform else f"{kind} ({platform})",
        formats=sorted(set(FORMATS.values())),
        limits=dataclasses.asdict(service.limits),
    )


@router.post("/api/prompts", responses=FAULTS)
async def add_prompts(
    service: Serving,
    image: Annotated[list[UploadFile], File(description="an image, or several")],
    mask: Annotated[list[UploadFile], File(description="a mask for each image")],
    kind: Kind = "category",
    names: Names = None,
) -> Prompts:
    """Encodes examples once, for any number of images. The same examples have the same
    id. Sets above the limit are dropped, that of the oldest use first."""
    known = await service.remember(await _example(image, mask, kind, names))
    prompts = known.prompts
    return Prompts(
        id=known.id,
        kind=prompts.kind,
        prompts=len(image),
        palette=prompts.palette,
        names=dict(prompts.names),
    )


@router.post(
    "/api/segment",
    response_class=Response,
    responses=FAULTS
    | _UNKNOWN
    | _UNACCEPTABLE
    | {
        200: {
            "description": "The labels as a PNG, or a COCO data set of one image",
            "content": {_PNG: {}, _JSON: {}},
        }
    },  # fmt: skip
)
async def segment(
    request: Request,
    service: Serving,
    image: Annotated[UploadFile, File(description="the image to segment")],
    prompts: Annotated[
        str | None, Form(description="the id that /api/prompts gave")
    ] = None,
    prompt_image: Annotated[list[UploadFile] | None, File()] = None,
    prompt_mask: Annotated[list[UploadFile] | None, File()] = None,
    kind: Kind = "category",
    names: Names = None,
    split: Annotated[
        bool, Form(description="connected parts of a label are objects of their own")
    ] = False,
) -> Response:
    """Segments an image as `prompts` show it, or `prompt_image` and `prompt_mask`.

    `Accept: image/png`, the default: labels as a PNG of the image's size, 8 bits with a
    palette, or 16 bits if a label is above 255. `Accept: application/json`: a COCO data
    set of this image: labels, scores, boxes, run lengths (RLE) and polygons.
    """
    kind_of_answer = _accepted(request.headers.get("accept", "*/*"))
    known = await _known(service, prompts, prompt_image, prompt_mask, kind, names)
    upload = await _upload(image, "image")
    wanted = kind_of_answer == _JSON
    shown = await service.segment(upload, known, wanted, split)
    write = _data_set if wanted else FORMS["segments"].content
    return Response(await run_in_threadpool(write, shown), media_type=kind_of_answer)


@router.post(
    "/api/mask",
    response_class=Response,
    responses=FAULTS | {200: {"description": "A mask", "content": {_PNG: {}}}},
)
async def mask(
    service: Serving,
    image: Annotated[UploadFile, File(description="the image that shows the object")],
    box: Annotated[
        str | None, Form(description="left,top,right,bottom around it, in pixels")
    ] = None,
    points: Annotated[
        list[str] | None,
        Form(description="x,y,+ on the object; x,y,- on the background"),
    ] = None,
    scribble: Annotated[
        UploadFile | None,
        File(description="strokes on a layer: red for background, else object"),
    ] = None,
) -> Response:
    """The mask of one object that is marked by a box, points or strokes: a PNG with
    labels 0 and 1."""
    uploads = [await _upload(image, "image")]
    if scribble is not None:
        uploads.append(await _upload(scribble, "scribble"))
    made = await service.mask(uploads, box, points or [])
    return Response(await run_in_threadpool(label_png, made), media_type=_PNG)


async def _known(
    service: Service,
    id: str | None,
    images: Sequence[UploadFile] | None,
    masks: Sequence[UploadFile] | None,
    kind: str,
    names: dict[int, str] | None,
) -> Known:
    if (id is None) == (not images and not masks):
        raise HTTPException(
            422,
            "either prompts, an id that /api/prompts gave, or prompt_image and "
            "prompt_mask are wanted",
        )
    if id is not None:
        return await service.find(id)
    return await service.remember(
        await _example(images or [], masks or [], kind, names)
    )


async def _example(
    images: Sequence[UploadFile],
    masks: Sequence[UploadFile],
    kind: str,
    names: dict[int, str] | None,
) -> Example:
    return Example(
        [await _upload(each, f"image {i}") for i, each in enumerate(images, 1)],
        [await _upload(each, f"mask {i}") for i, each in enumerate(masks, 1)],
        kind,
        names or {},
    )


async def _upload(file: UploadFile, default: str) -> Upload:
    return last_part(file.filename, default), await file.read()


def _data_set(shown: Shown) -> bytes:
    part = coco.piece(shown.source, shown.size, shown.objects, shown.categories)
    return as_json(coco.join_set(None, {1: part}, shown.categories))


def _accepted(header: str) -> str:
    """The form of the answer that a header `Accept` asks for."""
    wanted: list[tuple[float, int, str]] = []
    for part in header.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        share = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        with contextlib.suppress(ValueError):
            wanted.append((-float(share), len(wanted), kind))
    for weight, _, kind in sorted(wanted):
        if weight and kind in _RANGES:
            return _RANGES[kind]
    raise HTTPException(406, f"Accept: {header}: {_PNG} or {_JSON} is wanted")
