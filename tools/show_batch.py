"""A contact sheet of exactly what training sees at a step of a config.

    python tools/show_batch.py --config=configs/shapes.py --out=batch.png

Prompt and query with their targets, in the colours of that step. Hidden patches, which
the model must paint, are greyed. Pixels that the loss does not count are hatched in
red.
"""

import sys

from absl import app, flags
from ml_collections import config_flags
from PIL import Image

from seggpt_jax.data.sample import BadRecord
from seggpt_jax.runs import paths
from seggpt_jax.training.batch_sheet import draw_batch


def main(config, out: str, step: int, rows: int):
    try:
        paths.check("--out", out)
        sheet = draw_batch(config, step, rows)
        Image.fromarray(sheet).save(out)
    except (ValueError, BadRecord, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{out}: rows 0 to {rows - 1} of the batch of step {step}")


if __name__ == "__main__":
    config_flag = config_flags.DEFINE_config_file(
        "config", None, "Configuration file, as in seggpt_jax.main.", lock_config=True
    )
    flags.DEFINE_string("out", "batch.png", "Picture to write.")
    flags.DEFINE_integer("step", 0, "Step whose batch is shown.")
    flags.DEFINE_integer("rows", 8, "Rows of the batch, one each.")
    flags.mark_flag_as_required("config")
    F = flags.FLAGS
    app.run(lambda _: main(config_flag.value, F.out, F.step, F.rows))
