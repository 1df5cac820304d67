"""A contact sheet of exactly what training sees at a step of a config.

    python tools/show_batch.py --config=configs/shapes.py --out=batch.png

The same as `seggpt show`.
"""

import sys

from seggpt_jax.cli.command import main

if __name__ == "__main__":
    main(["show", *sys.argv[1:]])
