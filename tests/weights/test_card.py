"""A folder for the hub: its card, and what transformers needs."""

import dataclasses

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor, SegGptForImageSegmentation

from seggpt_jax.predict import make_predict_fn
from seggpt_jax.weights import pretrained, release
from seggpt_jax.weights.build import build_model
from seggpt_jax.weights.convert import convert
from seggpt_jax.weights.torch_bridge import run_port
from tests.support.models import SMALL, random_params, small

PARAMS = jax.device_get(random_params(small()))
OTHER = SMALL.replace(merge_after=0, taps=(0, 3))  # which no tensor tells
RNG = np.random.default_rng(0)


def write_release(folder):
    release.export_params(folder, PARAMS, dataclasses.asdict(OTHER))
    return folder


def test_a_hub_folder_is_whole(tmp_path):
    """A card with the hub's metadata, and all that transformers needs."""
    source = write_release(tmp_path / "source")
    out = tmp_path / "mine"
    said = list(convert(source, out, "hub-folder", license="cc-by-4.0"))
    assert said[-1] == f"upload it: hf upload OWNER/mine {out}"
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "transformers"
    assert "--model OWNER/mine" in card.text and str(tmp_path) not in card.text
    assert AutoImageProcessor.from_pretrained(out).size == {"height": 16, "width": 16}
    port = SegGptForImageSegmentation.from_pretrained(out).eval()
    images, targets, query = RNG.standard_normal((3, 1, 16, 16, 3), np.float32)
    theirs = run_port(port, images, targets, query)
    model = build_model({"dtype": "float32"}, pretrained.Weights(OTHER, PARAMS))
    ours = make_predict_fn(model)(
        PARAMS, images[None], targets[None], query, np.zeros(1, np.int32)
    )
    # float32 in another order, on paintings of scale 10
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_card_without_a_licence_is_noted(tmp_path):
    source = write_release(tmp_path / "source")
    said = list(convert(source, tmp_path / "mine", "hub-folder"))
    assert "its README.md names no licence: write it there before you upload" in said
    with pytest.raises(ValueError, match="--license=mit is for a model card"):
        list(convert(source, tmp_path / "hf", "hf", license="mit"))
