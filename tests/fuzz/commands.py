"""Command lines of `seggpt` and of `main`: right ones, and what slips make of them.

Each is a process of its own, begun by `fork` from one that has imported all. It ends by
itself, with status 0 or 1, or with 2 and one error in words. It never changes a file
that it was given, and leaves no half-written one.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import nasty
from tests.fuzz.outcomes import Refused, Wrong, check_message

_WAIT = 140.0  # seconds on the clock: beside other work, PyTorch takes 60 for 6 of CPU
_MOST = 10.0  # seconds of CPU before an error
_REPOSITORY = Path(__file__).parents[2]
_MODEL = ["--model", "model"]
# Commands that are right in the folder of `start`.
_RIGHT = [
    ["segment", *_MODEL, "--prompt", "prompt.png:mask.png", "photos", "--out", "out"],
    ["segment", *_MODEL, "--prompt", "prompt.png:mask.png", "photos/a.jpg", "--out",
     "out", "--as", "segments,overlay,colors,coco-json", "--names", "1=cat,2=dog"],
    ["segment", *_MODEL, "--prompt", "photos:masks", "--prompt", "auto:1",
     "prompt.png", "--out", "out", "--kind", "instance", "--split", "--as", "yolo"],
    ["segment", *_MODEL, "--prompt", "photos:coco.json", "prompt.png", "--out", "out",
     "--classes", "cat", "--as", "coco-json,csv"],
    ["segment", *_MODEL, "--prompt", "tuned.safetensors", "photos", "--out", "out"],
    ["segment", *_MODEL, "--prompt", "prompt.png:mask.png", "photos/b.png", "--out",
     "out", "--tile", "20", "--batch", "2", "--ensemble", "both"],
    ["segment", *_MODEL, "--prompt", "photos/a.jpg:coco.json", "photos", "--out", "out",
     "--coco", "coco.json", "--as", "coco-json"],
    ["video", *_MODEL, "--first", "first.png", "clip.mp4", "--out", "out"],
    ["video", *_MODEL, "--prompt", "prompt.png:mask.png", "photos", "--out", "out",
     "--as", "segments", "--memory", "1"],
    ["video", *_MODEL, "--first", "first.png", "clip.mp4", "--out", "out", "--at",
     "1:first.png", "--add", "2:other.png", "--as", "segments,overlay"],
    ["mask", "prompt.png", "--box", "4,4,24,22", "--out", "new.png"],
    ["mask", "prompt.png", "--points", "9,9,+", "1,1,-", "--out", "new.png"],
    ["mask", "prompt.png", "--scribble", "strokes.png", "--out", "new.png"],
    ["tune", *_MODEL, "--data", "data", "--out", "new.safetensors", "--steps", "2"],
    ["index", "photos", "masks", "--out", "new"],
    ["check", "--config", "configs/shapes.py"],
    ["check", "indexed", "--root", "data"],
    ["prepare", "indexed", "--root", "data", "--out", "new", "--workers", "0"],
    ["show", "--config", "configs/shapes.py", "--out", "sheet.png", "--rows", "2"],
    ["show", "--config", "tiny.py", "--out", "sheet.png", "--step", "3"],
    ["new", "mine"],
    ["index", "photos", "coco.json", "--out", "new"],
    ["index", "photos", "masks", "--out", "new", "--names", "1=cat,2=dog"],
    ["check", "coco_json", "--root", "set", "--splits", "train"],
    ["check", "coco_json", "--root", "set", "--splits", "train", "--set",
     "kind=instance"],
    ["check", "--config", "tiny.py", "--config.log_every=1"],
    ["prepare", "coco_json", "--root", "set", "--out", "new", "--splits", "train",
     "--workers", "1"],
    ["report", "run", "--out", "new"],
    ["convert", "--input", "model", "--output", "new", "--to", "hub-folder"],
    ["main", "--config=tiny.py", "--workdir=new"],
    ["main", "--config=tiny.py:steps=4", "--workdir=new", "--config.seed=3",
     "--config.log_every=2"],
    ["main", "--config=configs/shapes.py:steps=200", "--workdir=new"],
    ["main", "--config=tiny.py:evals", "--workdir", "new",
     "--config.optim.clip=0.5"],
    ["configs", "new"],
    ["serve", *_MODEL, "--port", "0"],
    ["demo", *_MODEL, "--port", "0", "--host", "localhost"],
    ["convert", "--input", "model", "--output", "new"],
    ["convert", "--input", "model", "--output", "new", "--raw"],
    ["models"], ["doctor"], [], ["--help"], ["segment", "--help"], ["models", "--help"],
]  # fmt: skip
_OPTIONS = ["--model", "--prompt", "--out", "--as", "--names", "--classes", "--split",
            "--coco", "--kind", "--tile", "--batch", "--ensemble", "--dtype", "--bits",
            "--attention", "--first", "--memory", "--fps", "--camera", "--at", "--add",
            "--box", "--points", "--scribble", "--data", "--steps", "--lr", "--prompts",
            "--seed", "--port", "--host", "--token", "--queue", "--sets", "--input",
            "--output", "--to", "--license", "--raw", "--config", "--config.seed=x",
            "--root", "--set", "--splits", "--rows", "--step", "--workers", "--none",
            "--max-megabytes", "--max-megapixels", "-h", "-v", "--"]  # fmt: skip


class _Stopped(Exception):
    """A run came to its first step."""


def start(home: Path) -> tuple[Path, dict[str, str], subprocess.Popen]:
    """A folder to copy for each command, the sums of its files, and the process that
    begins commands."""
    given = home / "given"
    ours = {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(home / "cache"),
            "COLUMNS": "200", "JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3"}  # fmt: skip
    paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | ours | {"PYTHONPATH": os.pathsep.join(paths)}
    begin = [sys.executable, "-m", "tests.fuzz.commands"]
    subprocess.run([*begin, "make", str(given)], env=env, check=True)
    pool = subprocess.Popen(
        [*begin, "begin"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return given, _sums(given), pool


def make(here: Path) -> None:
    """Writes the files that commands name."""
    import jax
    from PIL import Image

    from configs import eval as eval_config
    from seggpt_jax.evaluate import evaluate
    from seggpt_jax.prompts.file import PromptFile, save_prompts
    from seggpt_jax.prompts.read import read_prompts
    from seggpt_jax.weights import release
    from tests.evaluators.test_rows import mose
    from tests.support import folders
    from tests.support.models import SMALL, random_params, small
    from tests.support.videos import write_clip

    (here / "photos").mkdir(parents=True)
    (here / "masks").mkdir()
    (here / "empty").mkdir()
    rng = np.random.default_rng(0)
    blob = np.zeros((30, 40), np.uint8)
    blob[8:18, 8:20], blob[20:28, 25:38] = 1, 2
    for name in ("prompt.png", "photos/a.jpg", "photos/b.png"):
        noise = rng.integers(0, 30, (30, 40, 3)).astype(np.uint8)
        noise[blob > 0] += 120
        Image.fromarray(noise).save(here / name)
    for name in ("mask.png", "masks/a.png", "masks/b.png", "first.png"):
        Image.fromarray(blob).save(here / name)
    Image.fromarray((blob == 1) * np.uint8(1)).save(here / "strokes.png")
    Image.fromarray((blob == 1) * np.uint8(5)).save(here / "other.png")
    (here / "text.txt").write_text("text\n")
    square = [8, 8, 20, 8, 20, 18, 8, 18]
    coco: dict[str, Any] = {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30}
                   for i, name in ((1, "a.jpg"), (2, "b.png"))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "iscrowd": 0,
                         "bbox": [8, 8, 12, 10], "area": 120, "segmentation": [square]}
                        for i in (1, 2)],
    }  # fmt: skip
    (here / "coco.json").write_text(json.dumps(coco))
    shutil.copytree(here / "photos", here / "set/train")
    (here / "set/annotations").mkdir()
    shutil.copy(here / "coco.json", here / "set/annotations/train.json")
    write_clip(here / "clip.mp4", [np.asarray(Image.open(here / "prompt.png"))] * 3)
    folders.write(here / "data")
    params = jax.device_get(random_params(small()))
    release.export_params(here / "model", params, dict(SMALL.__dict__))
    prompts = read_prompts(
        [here / "prompt.png"], [here / "mask.png"], "category", SMALL.half
    )
    content = PromptFile(prompts, {1: "cat", 2: "dog"}, SMALL.geometry, {}, {})
    save_prompts(here / "tuned.safetensors", content)
    shutil.copy(_REPOSITORY / "tests/tiny.py", here / "tiny.py")
    config = eval_config.get_config("all")
    config.data_dir, config.checkpoint = str(here / "of_run"), str(here / "model")
    mose(None, here / "of_run/mose")
    config.evals.mose.memories = (2,)
    evaluate(config, str(here / "run"))
    shutil.rmtree(here / "of_run")


def begin() -> None:
    """Begins a process for each line of JSON: words, folder, and files for what it
    prints. Answers with how it ended, and its seconds of CPU."""
    from seggpt_jax import main, train
    from seggpt_jax.cli import command, serve_command
    from seggpt_jax.serve import run as serving

    def stopped(self, checkpoints):
        raise _Stopped

    train.Loop.prepare = stopped
    serve_command.webbrowser.open = lambda url: True
    serving.serve = lambda app, taken: None
    while line := sys.stdin.readline():
        words, folder, out, error = json.loads(line)
        if child := os.fork():
            print(json.dumps(_ended(child)), flush=True)
            continue
        os.chdir(folder)
        sys.stdin.close()
        for path, number in ((os.devnull, 0), (out, 1), (error, 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        try:
            _run(words, command, main)
        except _Stopped:
            sys.exit(0)


def _run(words: list[str], command, main) -> None:
    sys.argv = ["seggpt", *words]
    if words[:1] != ["main"]:
        command.main()
    from absl import app

    sys.argv = ["seggpt_jax.main", *words[1:]]
    main.flags.mark_flag_as_required("config")
    app.run(main.main, flags_parser=main.parse_flags)


def _ended(child: int) -> tuple[str, float]:
    """How a process ended: its status, `signal N`, or `hang`; and its CPU seconds."""
    end = time.monotonic() + _WAIT
    how = ""
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end and not how:
            how = "hang"
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    if not how:
        code = os.waitstatus_to_exitcode(status)
        how = str(code) if code >= 0 else f"signal {-code}"
    return how, used.ru_utime + used.ru_stime


def attempt(rng: np.random.Generator, folder: Path, started: Any) -> None:
    given, sums, pool = started
    shutil.copytree(given, folder, dirs_exist_ok=True)
    words = list(_RIGHT[rng.integers(len(_RIGHT))])
    slips = int(rng.choice([0, 1, 1, 1, 2, 3]))
    for _ in range(slips):
        words = _slip(rng, words)
    out, error = folder.parent / "out.txt", folder.parent / "error.txt"
    asked = [words, str(folder), str(out), str(error)]
    pool.stdin.write((json.dumps(asked) + "\n").encode())
    pool.stdin.flush()
    if not (answer := pool.stdout.readline()):
        os.abort()  # the process that begins others is gone: so is this one
    status, seconds = json.loads(answer)
    text = error.read_text(errors="replace")
    said = f"{words}: status {status}, {out.read_text(errors='replace')[-300:]!r}, "
    said += f"stderr {text}"
    found = _sums(folder)
    if status not in ("0", "1", "2") or "Traceback" in text or "Warning:" in text:
        raise Wrong(said)
    free = words if words[:1] == ["show"] else []  # --out replaces an earlier sheet
    differ = [name for name, one in sums.items() if found.get(name) != one]
    if changed := [name for name in differ if name not in free]:
        raise Wrong(f"{changed} was changed by {said}")
    if half := [n for n in found if n.endswith(".part") or "/.new" in n]:
        raise Wrong(f"{half} was left by {said}")
    if not slips and words and status == "2":
        raise Wrong(said)
    if status != "2":
        return
    if seconds > _MOST:
        raise Wrong(f"{seconds:.0f} s of CPU before an error: {said}")
    lines = [line for line in text.splitlines() if "error: " in line]
    if len(lines) != 1:
        raise Wrong(f"{len(lines)} errors: {said}")
    check_message(lines[0].split("error: ", 1)[1], [], quoted="cannot be read")
    if new := sorted(found.keys() - sums.keys()):
        raise Wrong(f"{new} is there after an error: {said}")
    raise Refused(f"{' '.join(words)[:300]} -> {lines[0]}")


def _slip(rng: np.random.Generator, words: list[str]) -> list[str]:
    """The arguments with one of them lost, doubled, replaced, moved or added."""
    words = list(words)
    place = int(rng.integers(len(words) + 1))
    # Mostly the value of an option: its name is right, and it is looked at.
    values = [i for i, word in enumerate(words) if i and not word.startswith("-")]
    if values and rng.random() < 0.6:
        words[values[rng.integers(len(values))]] = nasty.word(rng).replace("\0", "")
        return words
    way = int(rng.integers(8))
    if way == 0 and words:
        del words[min(place, len(words) - 1)]
    elif way == 1 and words:
        place = min(place, len(words) - 1)
        words[place:place] = words[place : place + 2]
    elif way in (2, 3, 4) and len(words) > 1:
        words[max(1, min(place, len(words) - 1))] = nasty.word(rng)
    elif way == 5 and len(words) > 2:
        other = 1 + int(rng.integers(len(words) - 1))
        place = max(1, min(place, len(words) - 1))
        words[place], words[other] = words[other], words[place]
    elif way == 6:
        option = _OPTIONS[rng.integers(len(_OPTIONS))]
        words[place:place] = [option, nasty.word(rng)]
    else:
        words.insert(place, nasty.word(rng))
    return [text.replace("\0", "") for text in words]


def _sums(folder: Path) -> dict[str, str]:
    """The sums of the files below a folder; a folder without files counts as one.
    Python's own compiled files do not."""
    found = {}
    for path in folder.rglob("*"):
        if "__pycache__" in path.parts:
            continue
        name = str(path.relative_to(folder))
        if path.is_file():
            found[name] = hashlib.sha1(path.read_bytes()).hexdigest()
        elif not any(path.iterdir()):
            found[f"{name}/"] = ""
    return found


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        begin()
