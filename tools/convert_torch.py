"""Converts weights between this project, the authors' .pth and transformers.

    python tools/convert_torch.py --input=FILE_OR_FOLDER --output=FOLDER
        [--to=ours|official|hf] [--raw]

The same as `seggpt convert`.
"""

import sys

from seggpt_jax.cli.command import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
