"""`Predictor`: segments images and videos as example images show it."""

import dataclasses
import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard, cast

import jax
import numpy as np
from absl import logging
from PIL import Image

from seggpt_jax import colors
from seggpt_jax.config import require
from seggpt_jax.data.decode import Picture, as_array, naming_errors
from seggpt_jax.data.sample import KINDS
from seggpt_jax.models.seggpt import SegGPT, SegGPTConfig
from seggpt_jax.pictures import images, tiles, video
from seggpt_jax.predict import Engine, overlapped
from seggpt_jax.prompts import clicks, search, selection
from seggpt_jax.prompts.file import load_prompts
from seggpt_jax.prompts.read import Prompts, read_labels, read_prompts
from seggpt_jax.weights.build import inference_params, load_model
from seggpt_jax.weights.names import DEFAULT


@dataclasses.dataclass(frozen=True)
class Result:
    """A segmented image.

    segments: labels int32 `[h, w]` at the image's size, 0 background. colors: the same
    labels in the prompts' colours, uint8 `[h, w, 3]`. confidence: share of the label in
    every pixel, 0..1, `[h, w]`. scores: each found label -> mean confidence over its
    pixels. shares: each label of the prompts, 0 too -> its share in every pixel, 0..1,
    float32 `[h, w]`, made when it is asked for; the shares of a pixel sum to 1.
    painting: the model's raw output, float32 `[H, W, 3]` in 0..255 at the model's size,
    or `[t, H, W, 3]` of t tiles. palette: label -> colour. choice: the prompts chosen
    for this image, None where all images share their prompts.
    """

    segments: np.ndarray
    colors: np.ndarray
    confidence: np.ndarray
    scores: dict[int, float]
    shares: Mapping[int, np.ndarray]
    painting: np.ndarray
    palette: dict[int, tuple[int, int, int]]
    choice: search.Choice | None = None


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """Prompts, encoded once for any number of images (`Predictor.encode_prompts`).

    prompts: as they were given, at the model's size. encoded: by the model; None of
    candidates that are chosen for each image. names: label -> class; empty where the
    prompts do not say.
    """

    prompts: Prompts
    encoded: Any
    names: Mapping[int, str] = MappingProxyType({})

    @property
    def palette(self) -> dict[int, tuple[int, int, int]]:
        """Label -> colour; 0, the background, is black."""
        return self.prompts.colors_by_label()

    @property
    def kind(self) -> str:
        """`category` or `instance`: what the labels tell apart."""
        kind = int(self.prompts.kind[0])
        return next(name for name, number in KINDS.items() if number == kind)


class _Shares(Mapping[int, np.ndarray]):
    """Label -> share; `share` makes it."""

    def __init__(self, labels: np.ndarray, share: Callable[[int], np.ndarray]):
        self._labels, self._share = labels.tolist(), share

    def __getitem__(self, label: int) -> np.ndarray:
        if label not in self._labels:
            raise KeyError(label)
        return self._share(label)

    def __iter__(self) -> Iterator[int]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)


class _Job(NamedTuple):
    """An image in work: its size, its tiles, and the tiles at the model's size."""

    size: tuple[int, int]
    boxes: list[tiles.Box]
    queries: np.ndarray


class Predictor:
    """Segments images and videos as its prompts show it.

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
        require(batch_size >= 0, "batch_size", batch_size, "at least 0")
        require(tile >= 0, "tile", tile, "at least 0")
        require(0 <= overlap < 1, "overlap", overlap, "in [0, 1)")
        require(bits in range(8, 17), "bits", bits, "a whole number of 8 to 16")
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

        name: the path of a release, a training run, a `.pth` or `.safetensors` file or
        a folder of transformers; else a bundled name; else `owner/name[@revision]` of
        the Hugging Face hub, such as `BAAI/seggpt-vit-large`, which is fetched once.
        dtype: `float32`, or `bfloat16`. attention: one of `models.attention.CHOICES`.
        settings: as of `Predictor`.
        """
        model, weights = load_model(name, dtype=dtype, attention=attention)
        return cls(
            model.config, weights.params, step=weights.step, model_name=weights.name,
            **settings,
        )  # fmt: skip

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
        """`category` or `instance`: what the labels of the prompts tell apart."""
        return self._prompted().kind

    example = staticmethod(clicks.example)

    def set_prompts(
        self,
        pictures: Picture | Sequence[Picture],
        targets: Picture | Sequence[Picture],
        kind: str = "category",
    ) -> None:
        """Encodes prompts, for all images that follow.

        pictures: one or several, as `images.read_rgb` takes them, or an array
        `[p, h, w, c]` of several. targets: a segmentation for each, as
        `images.read_mask` takes them, or an array `[p, h, w]` of label maps. Label maps
        and masks are painted in one palette of colours far apart. Paintings are used as
        they are, and their colours get the labels 1, 2, ... by frequency. kind:
        `category`, or `instance` where labels number instances.

        Raises ValueError that names the prompt; the earlier prompts then stay.
        """
        self._use(self.encode_prompts(pictures, targets, kind))

    def encode_prompts(
        self,
        pictures: Picture | Sequence[Picture],
        targets: Picture | Sequence[Picture],
        kind: str = "category",
        names: Mapping[int, str] = MappingProxyType({}),
    ) -> PromptSet:
        """Prompts beside those that are set, for calls with them: many sets can be held
        at once. pictures, targets, kind, errors: as of `set_prompts`. names: label ->
        class."""
        return self._encoded(self._read(*_examples(pictures, targets), kind), names)

    def _read(
        self, pictures: list[Picture], targets: list[Picture], kind: str
    ) -> Prompts:
        return read_prompts(pictures, targets, kind, self.size, self._bits)

    def load_prompt(self, path: str | os.PathLike) -> dict[int, str]:
        """Takes the prompts of a file that `seggpt tune` or mode "tune" wrote, for all
        images and videos that follow. Returns label -> class.

        Raises FileNotFoundError, or ValueError that names the file; the earlier prompts
        then stay. Warns in the log where the file was tuned for another geometry or
        another step.
        """
        content = load_prompts(path, self.size)
        own = dataclasses.asdict(self.config) | {"step": self.step}
        made_for = dict(content.model)
        if self.step and content.weights.get("step"):  # a release has none
            made_for["step"] = content.weights["step"]
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
    ) -> search.Choice | None:
        """Chooses `count` of many examples, given as `set_prompts` takes them, to be
        the prompts of all images that follow.

        by: `score` takes the examples that segment the other examples best, each as the
        only prompt, and returns them; n examples cost n * (n - 1) images. `similarity`
        chooses anew for every image: it takes the examples that look most like the
        image, and they are the `choice` of its result. Raises ValueError; the earlier
        prompts then stay.
        """
        pool = self._read(*_examples(pictures, targets), kind)
        search.check(by, count, pool.images.shape[1])
        given = search.bind(self._engine, self._ensemble, self._params)
        if by == "score":
            scores = search.leave_one_out(given, pool, self._batch_size)
            choice = search.best(scores, count)
            self._use(self._encoded(selection.pick(pool, choice.places)))
            return choice
        self._nearest = selection.Nearest(pool, count, given, self._batch_size)
        self._prompts = PromptSet(pool, None)
        return None

    def _encoded(
        self, prompts: Prompts, names: Mapping[int, str] = MappingProxyType({})
    ) -> PromptSet:
        given = prompts.images, prompts.targets, prompts.kind
        return PromptSet(prompts, self._encode(self._params, *given), names)

    def _use(self, prompts: PromptSet) -> None:
        self._prompts, self._nearest = prompts, None

    def __call__(
        self,
        pictures: Picture | Iterable[Picture],
        prompts: PromptSet | None = None,
    ) -> Any:
        """Segments one image -> `Result`; a list -> a list; an iterator -> a generator,
        which reads the next images while the device is busy with these.

        prompts: of `encode_prompts`; without them, those that are set.
        """
        segment = functools.partial(self._segment, prompts or self._prompted())
        if self._nearest and prompts is None:
            segment = functools.partial(self._segment_each, self._nearest)
        if _is_picture(pictures):
            return next(segment([pictures]))
        results = segment(_several(pictures))
        return list(results) if isinstance(pictures, (list, tuple)) else results

    def track(
        self,
        frames: str | os.PathLike | Iterable[Picture],
        first: Picture | None = None,
        *,
        memory: int = 8,
        kind: str = "instance",
    ) -> Iterator[Result]:
        """Segments a video, all objects in one pass; yields a `Result` per frame.

        frames: a video file, decoded frame by frame, or images. first: the segmentation
        of the first frame, as `set_prompts` takes it; without it, the prompts set
        before start the video. memory: number of last frames that serve as prompts too,
        each with its own result as target (paper, "Context Ensemble").
        """
        if isinstance(frames, (str, os.PathLike)):
            frames = video.read_frames(frames)
        pictures = enumerate(_several(frames), start=1)
        if first is None and self._nearest:
            raise ValueError(
                "prompts chosen by 'similarity' cannot start a video: choose by 'score'"
            )
        if first is None:
            return self._track(pictures, self._prompted().prompts, memory)
        start = self.read_image(_first(pictures), "frame 1")
        prompts = self._read([start], [first], kind)
        given = _given(read_labels(first, prompts, start.shape[:2]), prompts)
        return itertools.chain([given], self._track(pictures, prompts, memory))

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
        jobs: deque[_Job] = deque()  # images that still have tiles to be painted

        def paint(queries):
            return self._predict(self._params, given.encoded, queries)

        painted: list[np.ndarray] = []
        for count, paintings in overlapped(self._batches(pictures, jobs), paint):
            painted += list(_in_range(paintings)[:count])
            while jobs and len(painted) >= len(jobs[0].boxes):
                job = jobs.popleft()
                own, painted = painted[: len(job.boxes)], painted[len(job.boxes) :]
                yield _decode(job, np.stack(own), given.prompts)

    def _segment_each(
        self, nearest: selection.Nearest, pictures: Iterable[Picture]
    ) -> Iterator[Result]:
        """Segments every image by prompts chosen for it."""
        for number, picture in enumerate(pictures, start=1):
            image = self.read_image(picture, f"image {number}")
            some, encoded, choice = nearest(images.resize_image(image, self.size))
            for result in self._segment(PromptSet(some, encoded), [image]):
                yield dataclasses.replace(result, choice=choice)

    def _batches(self, pictures: Iterable[Picture], jobs: deque[_Job]):
        """Batches of tiles, each with its number of real tiles.

        The last batch is padded to a power of two, so that few sizes are compiled. An
        unreadable image raises only after all tiles of the images before it."""
        rows: list[np.ndarray] = []
        fault: Exception | None = None
        try:
            for number, picture in enumerate(pictures, start=1):
                job = self._job(self.read_image(picture, f"image {number}"))
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

    def _job(self, image: np.ndarray, whole: bool = False) -> _Job:
        size = image.shape[0], image.shape[1]
        boxes = tiles.cut(size, 0 if whole else self._tile, self._overlap)
        cells = [image[box.place] for box in boxes]
        resized = np.stack([images.resize_image(cell, self.size) for cell in cells])
        return _Job(size, boxes, colors.normalize(resized))

    def _track(
        self,
        pictures: Iterator[tuple[int, Picture]],
        prompts: Prompts,
        memory: int,
    ) -> Iterator[Result]:
        fns = self._engine.track_fns(memory)
        state = fns.start(self._params, prompts.images, prompts.targets, prompts.kind)
        jobs: deque[_Job] = deque()

        def frames():
            for number, picture in pictures:
                frame = self.read_image(picture, f"frame {number}")
                jobs.append(self._job(frame, whole=True))
                yield 1, jobs[-1].queries

        def step(frame):
            nonlocal state
            painting, state = fns.step(self._params, state, frame, prompts.palette)
            return painting

        for _, paintings in overlapped(frames(), step):
            yield _decode(jobs.popleft(), _in_range(paintings), prompts)


def _given(segments: np.ndarray, prompts: Prompts) -> Result:
    """The first frame's own segmentation as its result."""
    present = np.setdiff1d(np.unique(segments), [0])
    return Result(
        segments=segments,
        # searchsorted: labels rise
        colors=prompts.palette[np.searchsorted(prompts.labels, segments)],
        confidence=np.ones(segments.shape, np.float32),
        scores=dict.fromkeys(present.tolist(), 1.0),
        shares=_Shares(
            prompts.labels, lambda label: (segments == label).astype(np.float32)
        ),
        painting=_in_range(prompts.targets[0])[0],
        palette=prompts.colors_by_label(),
    )


def _decode(job: _Job, paintings: np.ndarray, prompts: Prompts) -> Result:
    """Paintings `[t, H, W, 3]` in 0..255 of an image's tiles -> its result."""
    shares = [colors.Memberships(painting, prompts.palette) for painting in paintings]
    index, confidence = tiles.blend(shares, job.boxes, job.size)
    sums = np.bincount(index.ravel(), confidence.ravel(), len(prompts.labels))
    counts = np.bincount(index.ravel(), minlength=len(prompts.labels))

    boxes, size = job.boxes, job.size  # not the job, whose pixels would be kept

    def share(label: int) -> np.ndarray:
        place = int(np.searchsorted(prompts.labels, label))
        return tiles.averaging(boxes, size)([own[place] for own in shares])

    return Result(
        segments=prompts.labels[index],
        colors=prompts.palette[index],
        confidence=confidence,
        scores={
            int(prompts.labels[k]): float(sums[k] / counts[k])
            for k in np.flatnonzero(counts)
            if k
        },
        shares=_Shares(prompts.labels, share),
        painting=paintings[0] if len(paintings) == 1 else paintings,
        palette=prompts.colors_by_label(),
    )


def _in_range(paintings: np.ndarray) -> np.ndarray:
    return np.clip(colors.denormalize(paintings), 0, 255)


def _is_picture(pictures: Any) -> TypeGuard[Picture]:
    if isinstance(pictures, (str, os.PathLike, Image.Image)):
        return True
    array = _array(pictures)
    return array is not None and array.ndim < 4


def _array(pictures: Any) -> np.ndarray | None:
    with naming_errors("an array"):
        return as_array(pictures)


def _several(pictures: Any) -> Iterable[Picture]:
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


def _first(pictures: Iterator[tuple[int, Picture]]) -> Picture:
    for _, picture in pictures:
        return picture
    raise ValueError("the video has no frames")
