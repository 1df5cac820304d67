"""A folder to upload to the Hugging Face hub: the model card beside the weights."""

from pathlib import Path

from seggpt_jax.models.seggpt import SegGPTConfig

CARD = "README.md"
_TEXT = """---
{metadata}
---

# {title}

SegGPT ([Segmenting Everything In Context](https://arxiv.org/abs/2304.03284)). Shown an
image and its mask, it segments other images the same way.

| | |
|---|---|
| size | {depth} blocks of width {width}, {count:,} parameters |
| images | {rows} x {columns}, patches of {patch} |

With seggpt_jax:

```
seggpt segment --model OWNER/{title} --prompt cat.jpg:cat-mask.png photos/ --out results
```

With transformers:

```python
from transformers import SegGptForImageSegmentation, SegGptImageProcessor

processor = SegGptImageProcessor.from_pretrained("OWNER/{title}")
model = SegGptForImageSegmentation.from_pretrained("OWNER/{title}")
```
"""


def write_card(
    path: Path, title: str, config: SegGPTConfig, count: int, origin: str, license: str
) -> None:
    """Writes the model card, with the hub's metadata.

    count: of parameters. origin: of the hub's models, the one that the weights come
    from; else "". license: as the hub writes it, such as apache-2.0; else "".
    """
    from huggingface_hub import ModelCardData

    metadata = ModelCardData(
        license=license or None,
        library_name="transformers",
        pipeline_tag="image-segmentation",
        base_model=origin or None,
        tags=["seggpt", "seggpt_jax", "in-context-segmentation", "vision"],
    )
    text = _TEXT.format(
        metadata=metadata.to_yaml(), title=title, count=count,
        depth=config.depth, width=config.width, patch=config.patch,
        rows=config.half[0], columns=config.half[1],
    )  # fmt: skip
    path.write_text(text)
