"""Auto-annotation of CVAT tasks by example images, for cvat-cli.

    pip install seggpt_jax cvat-cli
    cvat-cli --server-host https://app.cvat.ai task auto-annotate 7 \
        --function-file launch/cvat_function.py \
        -p model=str:BAAI/seggpt-vit-large -p prompt=str:examples:masks \
        -p names=str:1=cat,2=dog

docs/serve.md says more.
"""

from collections.abc import Iterator

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask

from seggpt_jax import Predictor
from seggpt_jax.cli import prompt_args
from seggpt_jax.results import outlines
from seggpt_jax.results.categories import categories, read_names
from seggpt_jax.results.objects import Object, find


class Function:
    """Finds what prompts show. `spec` has a label for each of their categories."""

    def __init__(
        self,
        prompt: str,
        model: str = "mini",
        names: str = "",
        kind: str = "category",
        split: bool = False,
        tile: int = 0,
        dtype: str = "float32",
    ):
        """prompt: IMAGE:MASK or FOLDER:MASKS, as `seggpt segment --prompt` takes it;
        several with `;` between them. names: the task's label for each value of the
        masks, as in `1=cat,2=dog`; not for a COCO file, which has names. split: every
        connected part is an object. The rest: as of `Predictor`. Raises ValueError that
        says what cannot be used."""
        self._predictor = Predictor.from_pretrained(model, dtype=dtype, tile=tile)
        self._split = split
        given = prompt_args.read(prompt.split(";"))
        named = read_names(names) if names else {}
        prompt_args.show(self._predictor, given, kind, named, quiet=True)
        found = self._predictor
        self._categories = categories(found.palette, found.kind, found.names | named)
        used = dict.fromkeys(self._categories.ids.values())
        self.spec = cvataa.DetectionFunctionSpec(
            labels=[
                cvataa.label_spec(self._categories.names[id], id, type="mask")
                for id in used
            ]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """The objects in an image: masks, or with `--conv-mask-to-poly` a polygon for
        each connected part."""
        least = context.conf_threshold or 0.0
        result = self._predictor(image)
        return [
            shape
            for item in find(result, self._split)
            if item.score >= least
            for shape in self._shapes(item, result.segments.shape, context)
        ]

    def _shapes(
        self,
        item: Object,
        size: tuple[int, ...],
        context: cvataa.DetectionFunctionContext,
    ) -> Iterator[models.LabeledShapeRequest]:
        id, score = self._categories.ids[item.label], item.score
        if context.conv_mask_to_poly:
            for outline in item.polygons:
                points = outlines.simplify(outline).ravel().tolist()
                yield cvataa.polygon(id, [float(x) for x in points], score=score)
            return
        yield cvataa.mask(id, encode_mask(item.whole(size)), score=score)


create = Function
