"""What the paper's evaluations cost with ViT-L, from counted products: a table.

    python -m benchmarks.cost

Paintings are those of configs/eval.py on the whole sets, with the encoding of prompts;
reading, resizing and scoring are not counted. Hours are at the stated rates.
"""

import argparse

from benchmarks.rows import parse
from seggpt_jax.models.flops import painting_flops
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.trees import table

# TFLOP/s: 40 % of the peaks in bfloat16, 989 and 197.
RATES = {"H100": 0.4 * 989, "v5e": 0.4 * 197}
SEEDS = 4
# Row -> paintings, and the prompts of each. Episodes are painted twice, by right and by
# wrong prompts; frames of DAVIS are those that its owners give. Where the number of
# episodes is not at hand, they are 1,000.
ROWS = {
    "fss1000, 1 shot": (2 * 2400, 1),
    "fss1000, 8 shots": (2 * 2400, 8),
    "pascal5i, 1 shot": (2 * 4000, 1),
    "pascal5i, 5 shots": (2 * 4000, 5),
    "coco20i, 1 shot": (2 * 4000, 1),
    "coco20i, 5 shots": (2 * 4000, 5),
    "lvis92i, 1 shot": (2 * 23000, 1),
    "lvis92i, 5 shots": (2 * 23000, 5),
    "isaid5i, 1 shot, of 1,000 episodes": (2 * 1000, 1),
    "isic, 1 shot": (2 * 600, 1),
    "chest_xray, 1 shot": (600, 1),  # one class: no wrong prompts
    "suim, 1 shot, of 1,000 episodes": (2 * 1000, 1),
    "pascal_part, 1 shot, at most": (2 * 10000, 1),
    "paco_part, 1 shot": (2 * 10000, 1),
    "permis, 1 shot, of 1,000 episodes": (2 * 1000, 1),
    "davis16, K = 8": (1376, 9),
    "davis17, K = 8": (1999, 9),
    "ade20k_examples, N = 1": (SEEDS * 150 * 2000, 1),
    "ade20k_examples, N = 8": (SEEDS * 150 * 2000, 8),
    "ade20k_examples, N = 16": (SEEDS * 150 * 2000, 16),
    "ade20k_examples, N = 32": (SEEDS * 150 * 2000, 32),
    "ade20k_tuned": (2000, 1),
    "coco_panoptic_tuned": (2 * 5000, 1),
    "polyp, N = 8": (SEEDS * 612, 8),
}


def encoding_flops(c: SegGPTConfig, prompts: int) -> float:
    """What prompts take to be encoded: their target stream through the blocks up
    to and including the merge."""
    rows, cols = c.grid[0] // 2, c.grid[1]
    half, d = rows * cols, c.width
    each = 4 * 2 * half * d + 2 * (2 * rows + cols) * d
    block = 24 * d**2 * (prompts + 1) * half + prompts * 2 * half * each
    return float((c.merge_after + 1) * block)


def main() -> None:
    parse(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    config = SegGPTConfig.read({"size": "l16", "canvas": (896, 448)})
    rows = []
    for name, (count, prompts) in ROWS.items():
        # Prompts of classes and of closed sets are encoded once: as good as never.
        once = not any(word in name for word in ("shot", "davis"))
        each = painting_flops(config, prompts)
        each += 0 if once else encoding_flops(config, prompts)
        total = count * each
        hours = [f"{total / (1e12 * rate) / 3600:.2f}" for rate in RATES.values()]
        rows.append((name, count, f"{each / 1e12:.2f}", f"{total:.2e}", *hours))
    headings = ("row", "paintings", "TFLOP each", "FLOP", *(f"{n} h" for n in RATES))
    print(table(headings, rows))


if __name__ == "__main__":
    main()
