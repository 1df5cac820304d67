"""The paper's run in small: from PyTorch weights to the page of results, on miniatures.

    python -m tests.rehearse --out runs/rehearsal

Random weights of a ViT-L in the layout of transformers' port are converted, trained,
tuned and scored by every row of configs/eval.py, with the commands that the paper's run
takes; each is printed with its time. Images are 64 x 64, scores mean nothing. `--size`
takes a smaller model. On your own data: the printed commands, with another data_dir.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from configs.eval import ROWS
from seggpt_jax.models.seggpt import SegGPTConfig
from tests.support import miniatures, row_miniatures


def main(given=None):
    """Returns the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--size", default="l16", help="ti16, s16, b16, l16 or g16")
    args = parser.parse_args(given)
    args.out.mkdir(parents=True)
    began = clock()
    data = args.out / "data"
    miniatures.write_all(data)
    row_miniatures.write_all(data)
    row_miniatures.heldout(data)
    write_weights(args.size, args.out / "torch")
    print(f"{since(began)}: miniatures, random weights of {args.size}", flush=True)
    for command in commands(args.out, args.size):
        run(command)
    page = args.out / "report/index.html"
    print(f"{since(began)} in all: {page}")
    return page


def write_weights(size: str, folder: Path) -> None:
    """A random model of transformers' port, which is not our code."""
    import torch
    from transformers import SegGptConfig, SegGptForImageSegmentation

    ours = SegGPTConfig.of(size)
    torch.manual_seed(0)
    config = SegGptConfig(
        hidden_size=ours.width, num_hidden_layers=ours.depth,
        num_attention_heads=ours.heads, image_size=ours.canvas,
        intermediate_hidden_state_indices=ours.taps, merge_index=ours.merge_after,
        mlp_dim=4 * ours.width,
    )  # fmt: skip
    SegGptForImageSegmentation(config).save_pretrained(folder)


def commands(out: Path, size: str):
    """Every step as the arguments of Python."""
    main, cli = ("-m", "seggpt_jax.main"), ("-m", "seggpt_jax.cli")
    yield *cli, "convert", f"--input={out}/torch", f"--output={out}/start"
    data = f"--config.data_dir={out}/data"
    yield (
        *main, "--config=configs/vitl.py:rehearsal", f"--workdir={out}/train", data,
        f"--config.init_from={out}/start", f"--config.model.size={size}",
    )  # fmt: skip
    trained = f"--config.checkpoint={out}/train/checkpoints"
    for form in ("ade20k", "coco_semantic", "coco_instance"):
        yield (
            *main, f"--config=configs/tune.py:{form},steps=2,batch=2",
            f"--workdir={out}/{form}", data, trained,
        )  # fmt: skip
    prompts = {
        "ade20k_tuned.prompt": "ade20k",
        "coco_panoptic_tuned.semantic": "coco_semantic",
        "coco_panoptic_tuned.instance": "coco_instance",
    }
    kinds = {name: row()["type"] for name, row in ROWS.items() if name != "indexed"}
    few = [f"{row}.episodes=7" for row, kind in kinds.items() if kind == "fewshot"]
    for row in ("ade20k_examples", "polyp"):
        few += [f"{row}.examples=(1,2)", f"{row}.seeds=(1000,)"]
    few += [f"{name}={out}/{form}/prompt.safetensors" for name, form in prompts.items()]
    yield (
        *main, "--config=configs/eval.py:all", f"--workdir={out}/scores", data, trained,
        *(f"--config.evals.{setting}" for setting in few),
    )  # fmt: skip
    yield *cli, "report", f"{out}/scores", f"--out={out}/report"


def run(command) -> None:
    """Runs Python; its output is shown where it fails."""
    began = clock()
    done = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    print(f"{since(began)}: python {' '.join(command)}", flush=True)
    if done.returncode:
        print(done.stdout[-6000:])
        raise SystemExit(f"error: exit status {done.returncode} of the command above")


def clock() -> tuple[float, float]:
    """Seconds, and seconds of CPU of this process and of those that it started."""
    return time.time(), sum(os.times()[:4])


def since(began: tuple[float, float]) -> str:
    wall, cpu = (now - then for now, then in zip(clock(), began, strict=True))
    return f"{wall:.0f} s ({cpu:.0f} s of CPU)"


if __name__ == "__main__":
    main()
