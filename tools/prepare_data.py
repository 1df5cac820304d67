"""Makes the prepared form of a data set: ArrayRecord files of encoded bytes.

    python tools/prepare_data.py ade20k --root=ADE20K --out=DATA

The same as `seggpt prepare`.
"""

import sys

from seggpt_jax.cli.command import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
