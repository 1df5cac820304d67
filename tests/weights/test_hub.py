"""Models by name, from a stand-in for the hub: fetched once, whole, and by commit.

The library reads its environment when it is imported. So what is fetched is fetched in
processes of their own, and each of them does many models at once.
"""

import dataclasses
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from seggpt_jax.models.params import to_torch
from seggpt_jax.trees import digest
from seggpt_jax.weights import hub, release
from seggpt_jax.weights.build import build_model
from seggpt_jax.weights.convert import convert
from tests import tiny
from tests.support.hub import TOKEN, serve
from tests.support.models import SMALL, random_params, small

PARAMS = jax.device_get(random_params(small()))
OTHER = SMALL.replace(merge_after=0, taps=(0, 3))  # which no tensor tells
ROOT = Path(__file__).parents[2]

# Reads models at once, and prints what it found, or the error, for each name.
READ = """
import json, resource, sys
from concurrent.futures import ThreadPoolExecutor
from absl import logging
import huggingface_hub.hf_api  # before threads: its lazy imports are not made for them
# A look at the whole cache would meet the files that the other threads write.
huggingface_hub.scan_cache_dir = None
from seggpt_jax.trees import digest
from seggpt_jax.weights import pretrained

def read(name):
    try:
        weights = pretrained.load(name)
    except (OSError, ValueError) as error:
        return {"error": str(error)}
    taps = list(weights.config.taps)
    return {"name": weights.name, "taps": taps, "digest": digest(weights.params)}

logging.set_verbosity(logging.INFO)
models, last = json.load(sys.stdin)
with ThreadPoolExecutor(len(models)) as pool:
    found = dict(zip(models, pool.map(read, models)))
for name in last:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, -1))
    found[name] = read(name)
json.dump(found, sys.stdout)
"""


def read(environment, *models, full=()):
    """name -> what a process finds by it; and the lines of its log. full: names that it
    reads last, when its disk is full."""
    done = run(READ, environment, input=json.dumps([models, full]))
    return json.loads(done.stdout), done.stderr.splitlines()


def run(code, environment, *arguments, **settings):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, cwd=ROOT, text=True,
        capture_output=True, timeout=200, **settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def write_hf(folder, config=SMALL, params=PARAMS, kind="seggpt"):
    """A folder of transformers, with more files than its model."""
    folder.mkdir()
    settings = {
        "model_type": kind, "merge_index": config.merge_after,
        "intermediate_hidden_state_indices": config.taps,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(to_torch(config, params, "hf"), folder / "model.safetensors")
    for name in ("README.md", "pytorch_model.bin", "more.pth"):
        (folder / name).write_text("not wanted")
    return folder


def write_shards(folder):
    folder.mkdir()
    tensors = to_torch(SMALL, PARAMS, "hf")
    half = sorted(tensors)[: len(tensors) // 2]
    parts = {"a.safetensors": half, "b.safetensors": tensors.keys() - {*half}}
    for file, part in parts.items():
        save_file({n: tensors[n] for n in part}, folder / file)
    where = {n: file for file, part in parts.items() for n in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    (folder / "c.safetensors").write_text("not wanted")
    return folder


def write_pth(folder, *names):
    folder.mkdir()
    tensors = {n: torch.tensor(x) for n, x in to_torch(SMALL, PARAMS).items()}
    for name in names:
        torch.save({"model": tensors}, folder / name)
    (folder / "toys.tar").write_text("not wanted")
    return folder


def write_release(folder, config=OTHER, params=PARAMS):
    release.export_params(folder, params, dataclasses.asdict(config))
    (folder / "more.pth").write_text("not wanted")
    return folder


# What a name ends in that is no model; HUB and CACHE stand for what differs.
ERRORS = {
    "me/none": "me/none: there is no such file or folder, and HUB has no such model; a "
    "private one asks for a login (`hf auth login`, or set HF_TOKEN)",
    "me/whole@v9": "me/whole@v9: me/whole has no branch, tag or commit of this name",
    "me/private": "me/private: there is no such file or folder, and HUB has no such "
    "model; a private one asks for a login (`hf auth login`, or set HF_TOKEN)",
    "me/gated": "me/gated is gated: accept its terms at HUB/me/gated, then log in (`hf "
    "auth login`, or set HF_TOKEN)",
    "me/broken": "me/broken: there is no such file or folder, and it could not be "
    "fetched from HUB: peer closed connection without sending complete message body "
    "(received 99 bytes, expected SIZE)",
    "me/down": "me/down: there is no such file or folder, and it could not be fetched "
    "from HUB: Server error '503 Service Unavailable' for url "
    "'HUB/api/models/me/down/revision/main'",
    "me/full": "me/full could not be written into the cache (CACHE): File too large",
    "me/empty": "me/empty holds no model: neither a release, nor transformers' files, "
    "nor a .pth, but README.md",
    "me/several": "me/several holds several models: choose one of a.pth, b.pth; fetch "
    "it, and give its path",
    "me/bert": "me/bert is a model of type 'bert', and no SegGPT",
    "me/torn": "CACHE/models--me--torn/snapshots/COMMIT/model.safetensors cannot be "
    "read: Error while deserializing header: incomplete metadata, file not fully "
    "covered",
    "me--x/whole": "me--x/whole is no path, nor a name of the hub: Cannot have -- or "
    ".. in repo_id: 'me--x/whole'.",
}  # fmt: skip


class World:
    """The stand-in, its commits, a cache, and what the first process found."""

    def __init__(self, hub, root):
        self.hub, self.cache = hub, root / "cache"
        made = write_hf(root / "whole", OTHER)
        list(convert(made, root / "converted", "hub-folder"))
        empty, torn = root / "empty", write_hf(root / "torn")
        empty.mkdir()
        (empty / "README.md").write_text("soon")
        with (torn / "model.safetensors").open("r+b") as file:
            file.truncate(9999)
        big, params = large()
        folders = {
            "me/whole": made,
            "me/release": write_release(root / "release"),
            "me/shards": write_shards(root / "shards"),
            "me/pth": write_pth(root / "pth", "seggpt.pth"),
            "me/converted": root / "converted",
            "me/cut": write_hf(root / "cut", big, params),
            "me/broken": write_hf(root / "broken"),
            "me/full": write_hf(root / "full"),
            "me/empty": empty,
            "me/several": write_pth(root / "several", "a.pth", "b.pth"),
            "me/bert": write_hf(root / "bert", kind="bert"),
            "me/torn": torn,
        }
        old = hub.push("me/whole", write_hf(root / "old"), "v1")
        self.commits = {name: hub.push(name, at) for name, at in folders.items()}
        self.commits["me/whole@v1"] = self.commits[f"me/whole@{old}"] = old
        hub.push("me/gated", root / "old", "v1", access="gated")
        hub.push("me/gated", root / "whole")
        hub.push("me/private", root / "whole", access="private")
        hub.push("me/down", root / "whole", access="down")
        hub.cuts[root / "cut/model.safetensors"] = [11 << 20]
        hub.cuts[root / "broken/model.safetensors"] = [99] * 99
        self.digests = {"me/cut": digest(params)}
        self.found, self.log = read(
            hub.environment(self.cache), *(self.commits.keys() - {"me/full"}),
            *ERRORS.keys() - self.commits.keys(), full=["me/full"],
        )  # fmt: skip
        self.asked = [*hub.requests]

    def folder(self, name):
        """Where the cache keeps a model's files."""
        owner, repository = name.partition("@")[0].split("/")
        snapshots = self.cache / "hub" / f"models--{owner}--{repository}" / "snapshots"
        return snapshots / self.commits[name]


def large():
    """A model of more than 10 MiB, the library's unit of a download."""
    config = SMALL.replace(pos_grid=360)
    return config, PARAMS | {"pos_embed": np.ones((360, 360, 24), np.float32)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with serve() as hub:
        yield World(hub, tmp_path_factory.mktemp("hub"))


MODELS = ("me/whole", "me/whole@v1", "me/release", "me/shards", "me/pth",
          "me/converted", "me/cut")  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_name_is_the_model_of_its_commit(world, name):
    found = world.found[name]
    assert found["name"] == f"{name.partition('@')[0]}@{world.commits[name]}"
    assert found["digest"] == world.digests.get(name, digest(PARAMS))
    merged_early = ("me/whole", "me/release", "me/converted")
    assert found["taps"] == [*(OTHER if name in merged_early else SMALL).taps]
    said = f"{name}: commit {world.commits[name]}, in {world.folder(name)}"
    assert any(said in line for line in world.log)


def test_nothing_is_fetched_but_the_model(world):
    wanted = {
        "me/whole": {"config.json", "model.safetensors"},
        "me/release": {"config.json", "model.safetensors", "SHA256SUMS"},
        "me/shards": {"model.safetensors.index.json", "a.safetensors", "b.safetensors"},
        "me/pth": {"seggpt.pth"},
        "me/bert": {"config.json"},
    }
    for name, files in wanted.items():
        assert {path.name for path in world.folder(name).iterdir()} == files


def test_a_cut_connection_goes_on_where_it_was(world):
    ranges = [part for method, _, part in world.asked if method == "GET" and part]
    assert f"bytes={10 << 20}-" in ranges  # the library's unit


@pytest.mark.parametrize("name", ERRORS)
def test_every_fault_is_one_sentence(world, name):
    wanted = ERRORS[name].replace("HUB", world.hub.address)
    wanted = wanted.replace("CACHE", str(world.cache / "hub"))
    if "COMMIT" in wanted:
        wanted = wanted.replace("COMMIT", world.commits[name])
    said = re.sub(r"expected \d+", "expected SIZE", world.found[name]["error"])
    assert said == wanted
    assert not list(world.cache.rglob("*.incomplete"))


def test_a_file_is_read_once_for_its_sha256(tmp_path, monkeypatch):
    """`pinned` has it computed, and `load` after it; a changed file is read again."""
    read = []
    sha256 = hub.checksums.sha256
    monkeypatch.setattr(hub.checksums, "sha256", lambda x: read.append(x) or sha256(x))
    blob, folder = (
        tmp_path / hashlib.sha256(b"one").hexdigest(),
        tmp_path / "a/b/folder",
    )
    folder.mkdir(parents=True)
    blob.write_bytes(b"one")
    (folder / "model.safetensors").symlink_to(blob)
    for _ in range(3):
        hub._check(folder)
    assert len(read) == 1
    blob.write_bytes(b"other")
    with pytest.raises(ValueError, match="is damaged: it differs from its sha256"):
        hub._check(folder)


def test_models_are_listed_while_others_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    scan, calls = huggingface_hub.scan_cache_dir, []

    def busy():
        calls.append(1)
        if len(calls) < 3:
            raise FileNotFoundError("refs/main.719333b7.tmp")
        return scan(tmp_path)

    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", busy)
    folder = tmp_path / "models--me--one/snapshots" / ("0" * 40)
    folder.parent.mkdir(parents=True)
    write_release(folder)
    assert [one.repository for one in hub.cached()] == ["me/one"]
    assert len(calls) == 3


def test_what_was_fetched_is_read_offline(world, tmp_path):
    """What is not there, in part or not whole is one sentence, too."""
    home = tmp_path / "home"
    shutil.copytree(world.cache, home, symlinks=True)
    damaged = home / world.folder("me/shards").relative_to(world.cache)
    content = bytearray((damaged / "b.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "b.safetensors").write_bytes(content)
    before = len(world.hub.requests)
    environment = world.hub.environment(home, HF_HUB_OFFLINE="1")
    found, log = read(environment, *MODELS, "me/none", "me/broken", "me/bert")
    assert len(world.hub.requests) == before
    assert not [line for line in log if "Taking" in line]
    for name in MODELS:
        if name != "me/shards":
            assert found[name] == world.found[name]
    assert found["me/shards"]["error"] == (
        f"{damaged / 'b.safetensors'} is damaged: it differs from its sha256. Delete "
        f"{home}/hub/models--me--shards to have it fetched again"
    )
    for name in ("me/none", "me/broken", "me/bert"):
        assert found[name]["error"] == (
            f"{name}: there is no such file or folder, no such model in the cache "
            f"({home}/hub), and HF_HUB_OFFLINE=1 forbids to ask {world.hub.address}"
        )


def test_without_a_network_the_cache_serves(world):
    with socket.socket() as reserved:  # bound, and not listening
        reserved.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        environment = world.hub.environment(world.cache, HF_ENDPOINT=gone)
        old = f"me/whole@{world.commits['me/whole@v1']}"
        found, log = read(environment, "me/whole", old, "runs/none")
    assert found["me/whole"] == world.found["me/whole"]
    assert found[old] == world.found["me/whole@v1"]
    refused = "there is no such file or folder, and it could not be fetched from"
    said = f"{refused} {gone}: [Errno 111] Connection refused"
    assert found["runs/none"]["error"] == f"runs/none: {said}"
    warned = f"me/whole: {said}. Taking {found['me/whole']['name']} from the cache"
    assert [line for line in log if "Taking" in line and warned in line]
    assert not [line for line in log if old in line]  # a commit needs no hub


# The command line twice, the list of models, and an evaluation, by names.
USE = """
import sys
from seggpt_jax import evaluate
from seggpt_jax.cli import main
from tests import tiny

def call(*argv, status=0):
    try:
        main(list(argv))
    except SystemExit as stopped:
        assert (stopped.code or 0) == status, argv

def segment(model, **settings):
    prompt = "docs/examples/prompt.jpg:docs/examples/prompt-mask.png"
    call("segment", f"--model={model}", f"--prompt={prompt}", f"--out={out}/segment",
         "docs/examples/query.jpg", **settings)

out = sys.argv[1]
sys.modules["torch"] = None  # as it is not installed
segment("me/gated")
segment("me/gated")
segment("me/gated@v1", status=2)
segment("me/late", status=2)
call("models")
config = tiny.config("evals", mode="evaluate", checkpoint="me/tiny")
evaluate.evaluate(config, f"{out}/scores")
"""


@pytest.mark.slow
def test_results_name_the_commit(world, tmp_path):
    model = build_model(tiny.config().model)
    params = jax.device_get(random_params(model))
    commit = world.hub.push(
        "me/tiny", write_release(tmp_path / "tiny", model.config, params)
    )
    late = write_pth(tmp_path / "late", "late.pth")
    world.hub.push("me/late", late)
    before = len(world.hub.requests)
    environment = world.hub.environment(world.cache, HF_TOKEN=TOKEN)
    done = run(USE, environment, str(tmp_path))
    gated = world.hub.repositories["me/gated"].branches["main"]
    stored = json.loads((tmp_path / "segment/config.json").read_text())
    assert stored["model"] == f"me/gated@{gated}"
    (path,) = (tmp_path / "scores/results").glob("*.json")
    results = json.loads(path.read_text())
    assert results["checkpoint"] == f"me/tiny@{commit}"
    assert results["config"]["checkpoint"] == results["checkpoint"]
    other = world.hub.repositories["me/gated"].branches["v1"]
    assert f'model: "me/gated@{gated}" -> "me/gated@{other}"' in done.stderr
    assert (
        "error: me/late (late.pth) needs PyTorch: pip install 'seggpt_jax[torch]', or "
        "use a .safetensors file instead" in done.stderr.splitlines()
    )
    listed = done.stdout.splitlines()
    for name in ("mini", "shapes", "BAAI/seggpt-vit-large"):
        assert any(line.startswith(f"{name} ") for line in listed)
    for name, its in ("me/gated", gated), ("me/gated@v1", other):
        (line,) = (line for line in listed if line.startswith(f"{name} "))
        assert f"cached, {its[:7]}" in line and "see its card" in line
    assert not any(line.startswith("me/bert") for line in listed)
    asked = world.hub.requests[before:]
    fetched = [a[1].split("/")[3] for a in asked if a[0] == "GET" and "/large/" in a[1]]
    assert sorted(fetched) == ["gated", "tiny"]  # both commits have the same file
