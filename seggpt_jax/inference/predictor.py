"""`Predictor`: segments images and videos as example images show it."""

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeGuard, cast, overload

import jax
import numpy as np
from absl import logging
from PIL import Image

from seggpt_jax.config import require, suggest
from seggpt_jax.data.decode import Picture, as_array, check_bits, naming_errors
from seggpt_jax.data.sample import KINDS
from seggpt_jax.inference.dtype import DTYPES, automatic
from seggpt_jax.inference.result import Job, Result, in_range, make_job, read_painting
from seggpt_jax.inference.session import Session
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.pictures import images
from seggpt_jax.pictures.video import Frame, read_frames
from seggpt_jax.predict import Engine, overlapped
from seggpt_jax.prompts import clicks, search, selection
from seggpt_jax.prompts.classes import by_class
from seggpt_jax.prompts.file import load_prompts
from seggpt_jax.prompts.read import Prompts, read_prompts, target_names
from seggpt_jax.trees import digest
from seggpt_jax.weights import pretrained
from seggpt_jax.weights.build import inference_params, load_model
from seggpt_jax.weights.names import DEFAULT


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """Prompts, encoded once for any number of images (`Predictor.encode_prompts`).

    Attributes:
      prompts: as they were given, at the model's size.
      encoded: by the model; None of candidates that are chosen for each image.
      names: label -> class; empty where the prompts do not say.
    """

    prompts: Prompts
    encoded: Any
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def palette(self) -> dict[int, tuple[int, int, int]]:
        """Label -> colour; 0, the background, is black."""
        return self.prompts.colors_by_label()

    @property
    def kind(self) -> str:
        """What the labels tell apart, `category` or `instance`."""
        kind = int(self.prompts.kind[0])
        return next(name for name, number in KINDS.items() if number == kind)


class Predictor:
    """Segments images and videos as its prompts show it::

        predictor = Predictor.from_pretrained("BAAI/seggpt-vit-large")
        predictor.set_prompts("cat.jpg", "cat-mask.png")
        segments = predictor("other.jpg").segments

    Args:
      config, params: the model; `from_pretrained` reads them.
      ensemble: how several prompts are combined: `feature`, `spatial` or `both`
        (`predict.make_predict_fn`).
      batch_size: images, or tiles, at once; 0: 1 on a CPU, 8 elsewhere.
      tile: images are cut into overlapping tiles of this side, in their own pixels;
        0 takes every image whole, as the paper does.
      overlap: share of a tile's side that the next tile covers too.
      bits: how many bits the values of images have where files or arrays have more than
        8 for a channel, 8 to 16: the upper 8 of them are kept.
      step: of the training run that wrote the parameters; 0 if unknown.
      model_name: which model it is, as `weights.names.Model.name`.

    Raises ValueError for a setting that is out of range.
    """

    def __init__(
        self,
        config: SegGPTConfig,
        params: Any,
        *,
        ensemble: str = "feature",
        batch_size: int = 0,
        tile: int = 0,
        overlap: float = 0.25,
        bits: int = 16,
        step: int = 0,
        model_name: str = "",
    ):
        _check(batch_size=batch_size, tile=tile, overlap=overlap, bits=bits)
        self.config = config
        model = SegGPT(config)
        self._engine, self._ensemble = Engine(model), ensemble
        self._encode, self._predict = self._engine.prompt_fns(ensemble)
        self._params = inference_params(model, params)
        self._batch_size = batch_size or (1 if jax.default_backend() == "cpu" else 8)
        self._tile, self._overlap, self._bits = tile, overlap, bits
        self._said: set[str] = set()  # remarks that are in the log
        self.step, self.model_name = step, model_name
        self._prompts: PromptSet | None = None
        self._nearest: selection.Nearest | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike = DEFAULT,
        *,
        dtype: str = "float32",
        attention: str = "auto",
        **settings,
    ) -> "Predictor":
        """A predictor with weights of any form that `pretrained.load` reads.

        Args:
          name: the path of a release, a training run, a `.pth` or `.safetensors` file
            or a folder of transformers; else a bundled name; else
            `owner/name[@revision]` of the Hugging Face hub, which is fetched once.
          dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where it is faster
            (docs/speed.md).
          attention: one of `models.attention.CHOICES`.
          settings: as of `Predictor`.
        """
        _check(**settings)  # before a large model is read
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is unknown{suggest(dtype, DTYPES)}")
        known = "float32" if dtype == "auto" else dtype
        model, weights = load_model(name, dtype=known, attention=attention)
        if dtype == "auto":
            known = automatic(model.config.width)
        return cls(
            model.config.replace(dtype=known), weights.params, step=weights.step,
            model_name=weights.name, **settings,
        )  # fmt: skip

    def describe(self) -> str:
        """The model's geometry and size, in words."""
        return pretrained.describe(self.config, self._params, self.step)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that images are resized to."""
        return self.config.half

    @property
    def palette(self) -> dict[int, tuple[int, int, int]]:
        """Label -> colour of the prompts; 0, the background, is black."""
        return self._prompted().palette

    @property
    def names(self) -> dict[int, str]:
        """Label -> class of the prompts; empty where they do not say."""
        return dict(self._prompts.names) if self._prompts else {}

    @property
    def kind(self) -> str:
        """What the labels of the prompts tell apart, `category` or `instance`."""
        return self._prompted().kind

    example = staticmethod(clicks.example)

    def set_prompts(
        self,
        pictures: Picture | Sequence[Picture],
        targets: Picture | Sequence[Picture],
        kind: str = "category",
        names: Mapping[int, str] = MappingProxyType({}),
        classes: Sequence[str] = (),
    ) -> None:
        """Encodes prompts, for all images that follow.

        Label maps and masks are painted in one palette of colours far apart. Paintings
        are used as they are; their colours get the labels 1, 2, ... by frequency.

        Args:
          pictures: one or several, as `images.read_image` takes them, or an array
            `[p, h, w, c]` of several.
          targets: a segmentation for each, as `images.read_mask` takes them, or an
            array `[p, h, w]` of label maps. The path of a `.json` is a COCO file: the
            objects that it has of the picture, which is a path too.
          kind: `category`, or `instance` where labels number instances.
          names: label -> class, of targets that are no COCO file.
          classes: the names of the classes that are shown; without them, all are.

        Raises ValueError that names the prompt; the earlier prompts then stay.
        """
        self._use(self.encode_prompts(pictures, targets, kind, names, classes))

    def encode_prompts(
        self,
        pictures: Picture | Sequence[Picture],
        targets: Picture | Sequence[Picture],
        kind: str = "category",
        names: Mapping[int, str] = MappingProxyType({}),
        classes: Sequence[str] = (),
    ) -> PromptSet:
        """Prompts beside those that are set, for calls with them: many sets can be held
        at once. Arguments and errors: as of `set_prompts`."""
        return self._encoded(*self._read(pictures, targets, kind, names, classes))

    def load_prompt(self, path: str | os.PathLike) -> dict[int, str]:
        """Takes the prompts of a file that `seggpt tune` or mode "tune" wrote, for all
        images and videos that follow. Returns label -> class.

        Raises FileNotFoundError, or ValueError that names the file; the earlier prompts
        then stay. Warns in the log where the file was tuned for another geometry,
        another step, or other weights (known of float32 only).
        """
        content = load_prompts(path, self.size)
        own = dataclasses.asdict(self.config) | {"step": self.step}
        made_for = {"one_way": False} | content.model  # older files do not say it
        if self.step and content.weights.get("step"):  # a release has none
            made_for["step"] = content.weights["step"]
        sha256 = content.weights.get("sha256")
        if sha256 and self.config.dtype == "float32":
            made_for["weights"] = f"sha256 {str(sha256)[:8]}..."
            own["weights"] = f"sha256 {digest(self._params)[:8]}..."
        for name, value in made_for.items():
            value = tuple(value) if isinstance(value, list) else value
            if own.get(name) != value:
                logging.warning(
                    "%s was tuned for a model of %s %s, and this one has %s: "
                    "expect poor results", path, name, value, own.get(name),
                )  # fmt: skip
        self._use(self._encoded(content.prompts, content.names))
        return content.names

    def search_prompts(
        self,
        pictures: Picture | Sequence[Picture],
        targets: Picture | Sequence[Picture],
        count: int = 1,
        by: str = "score",
        kind: str = "category",
        names: Mapping[int, str] = MappingProxyType({}),
        classes: Sequence[str] = (),
        show: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> search.Choice | None:
        """Chooses `count` of many examples, given as `set_prompts` takes them, to be
        the prompts of all images that follow.

        Args:
          pictures, targets, kind, names, classes: as of `set_prompts`.
          count: how many are chosen.
          by: `score` takes the examples that segment the other examples best, each as
            the only prompt, and returns them; n examples cost n (n - 1) images.
            `similarity` chooses anew for every image: it takes the examples that look
            most like the image, and they are the `choice` of its result.
          show: wraps the numbers of the examples that are tried, as a bar of tqdm does.

        Raises ValueError; the earlier prompts then stay.
        """
        pool, named = self._read(pictures, targets, kind, names, classes)
        search.check(by, count, pool.images.shape[1])
        given = search.bind(self._engine, self._ensemble, self._params)
        if by == "score":
            scores = search.leave_one_out(given, pool, self._batch_size, show)
            choice = search.best(scores, count)
            self._use(self._encoded(selection.pick(pool, choice.places), named))
            return choice
        self._nearest = selection.Nearest(pool, count, given, self._batch_size)
        self._prompts = PromptSet(pool, None, named)
        return None

    def _read(
        self,
        pictures: Picture | Sequence[Picture],
        targets: Picture | Sequence[Picture],
        kind: str,
        names: Mapping[int, str],
        classes: Sequence[str],
    ) -> tuple[Prompts, dict[int, str]]:
        shown, marks = _examples(pictures, targets)
        called = target_names(marks)  # arrays of chosen classes have no names
        marks, named = by_class(shown, marks, kind, names, classes)
        prompts = read_prompts(shown, marks, kind, self.size, self._bits, names=called)
        return prompts, named

    def _encoded(
        self, prompts: Prompts, names: Mapping[int, str] = MappingProxyType({})
    ) -> PromptSet:
        given = prompts.images, prompts.targets, prompts.kind
        return PromptSet(prompts, self._encode(self._params, *given), names)

    def _use(self, prompts: PromptSet) -> None:
        self._prompts, self._nearest = prompts, None

    @overload
    def __call__(
        self, pictures: Picture, prompts: PromptSet | None = ...
    ) -> Result: ...

    @overload
    def __call__(
        self,
        pictures: list[Any] | tuple[Any, ...],
        prompts: PromptSet | None = ...,
    ) -> list[Result]: ...

    @overload
    def __call__(
        self, pictures: Iterator[Picture], prompts: PromptSet | None = ...
    ) -> Iterator[Result]: ...

    def __call__(
        self,
        pictures: Picture | Iterable[Picture],
        prompts: PromptSet | None = None,
    ) -> Any:
        """Segments one image -> `Result`; a list -> a list; an iterator -> a generator,
        which reads the next images while the device is busy with these.

        Args:
          pictures: as `images.read_image` takes them.
          prompts: of `encode_prompts`; without them, those that are set.
        """
        segment = functools.partial(self._segment, prompts or self._prompted())
        if self._nearest and prompts is None:
            segment = functools.partial(self._segment_each, self._nearest)
        if _is_picture(pictures):
            return next(segment([pictures]))
        results = segment(_several(pictures))
        return list(results) if isinstance(pictures, (list, tuple)) else results

    def video(
        self, first: Picture | None = None, *, memory: int = 8, kind: str = "instance"
    ) -> Session:
        """A video to be given frame by frame, which takes corrections, new objects and
        the end of objects in its midst.

        Args:
          first: the segmentation of the first frame, as `set_prompts` takes it; without
            it, the prompts set before start the video.
          memory: number of last frames that serve as prompts too, each with its own
            result as target (paper, "Context Ensemble").
          kind: of the objects, `category` or `instance`.
        """
        if first is None and self._nearest:
            raise ValueError(
                "prompts chosen by 'similarity' cannot start a video: choose by 'score'"
            )
        start = self._prompted().prompts if first is None else first
        model = self._engine, self._params, self.read_image
        return Session(*model, start, memory, kind)

    def track(
        self,
        frames: str | os.PathLike | Iterable[Picture | Frame],
        first: Picture | None = None,
        *,
        corrections: Mapping[int, Picture] = MappingProxyType({}),
        additions: Mapping[int, Picture] = MappingProxyType({}),
        memory: int = 8,
        kind: str = "instance",
        ahead: int = 1,
    ) -> Iterator[Result]:
        """Segments a video, all objects in one pass; yields a `Result` per frame.

        Args:
          frames: a video file, decoded frame by frame, or images.
          first, memory, kind: as of `video`.
          corrections, additions: the number of a frame, from 0 -> its mask, as
            `Session.correct` and `Session.add` take it.
          ahead: 1 reads the next frames while this one is segmented; 0 gives each
            result before the next frame is read, as a camera wants it.

        Raises ValueError; after the last frame, for a mask of a frame that is not.
        """
        require(ahead in (0, 1), "ahead", ahead, "0 or 1")
        if isinstance(frames, (str, os.PathLike)):
            frames = read_frames(frames, self._bits)
        session = self.video(first, memory=memory, kind=kind)
        return session.follow(_several(frames), corrections, additions, ahead)

    def read_image(self, picture: Picture, name: str = "image") -> np.ndarray:
        """An image as the model is shown it, at its own size: uint8 `[h, w, 3]`, as
        `images.read_image` reads it. Each kind of remark goes to the log once."""
        shown = images.read_image(picture, name, self._bits)
        for remark in shown.remarks:
            if remark.what not in self._said:
                self._said.add(remark.what)
                where = images.name_of(picture, name)
                logging.warning("%s: %s (%s)", remark.what, where, remark.detail)
        return shown.pixels

    def _prompted(self) -> PromptSet:
        if self._prompts is None:
            raise ValueError("no prompts yet: call set_prompts first, or load_prompt")
        return self._prompts

    def _segment(
        self, given: PromptSet, pictures: Iterable[Picture]
    ) -> Iterator[Result]:
        jobs: deque[Job] = deque()  # images that still have tiles to be painted

        def paint(batch):
            count, queries = batch
            return count, self._predict(self._params, given.encoded, queries)

        painted: list[np.ndarray] = []
        for count, paintings in overlapped(self._batches(pictures, jobs), paint):
            painted += list(in_range(np.asarray(paintings))[:count])
            while jobs and len(painted) >= len(jobs[0].boxes):
                job = jobs.popleft()
                own, painted = painted[: len(job.boxes)], painted[len(job.boxes) :]
                yield read_painting(job, np.stack(own), given.prompts)

    def _segment_each(
        self, nearest: selection.Nearest, pictures: Iterable[Picture]
    ) -> Iterator[Result]:
        """Segments every image by prompts chosen for it."""
        for number, picture in enumerate(pictures, start=1):
            image = self.read_image(picture, f"image {number}")
            some, encoded, choice = nearest(images.resize_image(image, self.size))
            for result in self._segment(PromptSet(some, encoded), [image]):
                yield dataclasses.replace(result, choice=choice)

    def _batches(self, pictures: Iterable[Picture], jobs: deque[Job]):
        """Batches of tiles, each with its number of real tiles.

        The last batch is padded to a power of two, so that few sizes are compiled. An
        unreadable image raises only after all tiles of the images before it."""
        rows: list[np.ndarray] = []
        fault: Exception | None = None
        try:
            for number, picture in enumerate(pictures, start=1):
                image = self.read_image(picture, f"image {number}")
                job = make_job(image, self.size, self._tile, self._overlap)
                jobs.append(job)
                rows += list(job.queries)
                while len(rows) >= self._batch_size:
                    yield self._batch_size, np.stack(rows[: self._batch_size])
                    rows = rows[self._batch_size :]
        except Exception as error:
            fault = error
        if rows:
            size = min(self._batch_size, 1 << (len(rows) - 1).bit_length())
            yield len(rows), np.stack([*rows, *[rows[-1]] * (size - len(rows))])
        if fault:
            raise fault


def _check(
    *, batch_size: int = 0, tile: int = 0, overlap: float = 0, bits: int = 16, **others
) -> None:
    """Raises ValueError for a setting of `Predictor` that is out of range."""
    require(batch_size >= 0, "batch_size", batch_size, "at least 0")
    require(tile >= 0, "tile", tile, "at least 0")
    require(0 <= overlap < 1, "overlap", overlap, "in [0, 1)")
    check_bits(bits)


def _is_picture(pictures: Any) -> TypeGuard[Picture]:
    if isinstance(pictures, (str, os.PathLike, Image.Image)):
        return True
    array = _array(pictures)
    return array is not None and array.ndim < 4


def _array(pictures: Any) -> np.ndarray | None:
    with naming_errors("an array"):
        return as_array(pictures)


def _several(pictures: Any) -> Iterable[Any]:
    """Pictures one by one; an array `[p, h, w, c]` of any library as NumPy's."""
    array = _array(pictures)
    if array is not None:
        return array
    if isinstance(pictures, (bytes, dict)) or not isinstance(pictures, Iterable):
        raise ValueError(
            f"{type(pictures).__name__} cannot be read: pictures are wanted, each a "
            "path, a PIL image or an array"
        )
    return pictures


def _examples(pictures: Any, targets: Any) -> tuple[list[Picture], list[Picture]]:
    """Images and their targets. Beside several images, an array `[p, h, w]` is as many
    label maps."""
    shown = [pictures] if _is_picture(pictures) else list(_several(pictures))
    array = _array(targets)
    stacked = array is not None and array.ndim == 3 and len(array) == len(shown)
    if stacked and not _is_picture(pictures):
        return shown, list(cast(np.ndarray, array))
    return shown, [targets] if _is_picture(targets) else list(_several(targets))
