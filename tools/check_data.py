"""Reads every record of data sets, and names what is wrong.

    python tools/check_data.py --config=configs/vitl.py --config.data_dir=DATA

The same as `seggpt check`.
"""

import sys

from seggpt_jax.cli.command import main

if __name__ == "__main__":
    main(["check", *sys.argv[1:]])
