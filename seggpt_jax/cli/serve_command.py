"""What `seggpt serve` and `seggpt demo` do: options, the model, the server."""

import argparse
import importlib.util
import os
import threading
import webbrowser
from pathlib import Path

import numpy as np

from seggpt_jax.cli import model_args, talk
from seggpt_jax.inference import Predictor

_PACKAGES = ("fastapi", "uvicorn", "python_multipart")
_TOKEN = "SEGGPT_TOKEN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of both commands beside the model."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address (default: %(default)s)")
    add("--port", type=int, default=8765, help="0: any free one (default: %(default)s)")
    add("--token", default=os.environ.get(_TOKEN, ""),
        help=f"what clients must send; or in {_TOKEN}; needed for other addresses "
        "than this machine's own")  # fmt: skip
    add("--max-megabytes", type=int, default=64, metavar="N",
        help="in a request (default: %(default)s)")  # fmt: skip
    add("--max-megapixels", type=int, default=100, metavar="N",
        help="in the pictures of a request (default: %(default)s)")  # fmt: skip
    add("--queue", type=int, default=32, metavar="N",
        help="requests at once (default: %(default)s)")  # fmt: skip
    add("--sets", type=int, default=32, metavar="N",
        help="sets of prompts that are kept (default: %(default)s)")  # fmt: skip
    add(
        "--label-studio-media",
        type=Path,
        metavar="DIR",
        help="the images of Label Studio's tasks, which are found there by name",
    )
    add(
        "--label-studio-keep",
        type=Path,
        metavar="DIR",
        help="where Label Studio's annotations are kept for the next start",
    )
    add(
        "--label-studio-examples",
        type=int,
        default=5,
        metavar="N",
        help="annotations of a project that are prompts (default: %(default)s)",
    )


def run(args: argparse.Namespace, failed: object) -> None:
    """Serves until a signal; `demo` opens the page in a browser."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"the server needs {', '.join(missing)}: pip install 'seggpt_jax[serve]'"
        )
    # Imported late: only these commands need the packages.
    from seggpt_jax.serve.app import make_app
    from seggpt_jax.serve.gate import Limits
    from seggpt_jax.serve.label_studio.backend import Settings
    from seggpt_jax.serve.run import bind, is_local, serve, share_memory

    if not args.token and not is_local(args.host):
        raise ValueError(
            f"--host {args.host} lets other machines in: give a --token, or set "
            f"{_TOKEN}"
        )
    if args.port not in range(2**16):
        raise ValueError(f"--port {args.port}: 0 to 65535 is wanted")
    limits = Limits(args.max_megabytes, args.max_megapixels, args.queue, sets=args.sets)
    label_studio = Settings(
        args.label_studio_media, args.label_studio_keep, args.label_studio_examples
    )
    label_studio.check()
    with bind(args.host, args.port) as taken:
        host, port = taken.getsockname()[:2]
        share_memory()
        predictor = model_args.load(args)
        talk.say(args.quiet, "compiling, so that the first request does not wait")
        _warm(predictor)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        taken.listen()  # whoever comes from here on is answered
        print(f"{url} (stop: Ctrl-C)", flush=True)
        if args.command == "demo":
            threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
        app = make_app(
            predictor, predictor.model_name, limits, args.token, label_studio
        )
        serve(app, taken)


def _warm(predictor: Predictor) -> None:
    """Compiles what a first request with one prompt would wait for."""
    black = np.zeros((*predictor.size, 3), np.uint8)
    prompts = predictor.encode_prompts(black, np.ones(predictor.size, np.uint8))
    predictor(black, prompts)
