"""Paths, files, folders and checkpoints in a bucket, which a server of this machine
plays."""

import http

import jax.numpy as jnp
import numpy as np
import pytest
from gcp_storage_emulator import server

from seggpt_jax.runs import checksums, staging, writer
from seggpt_jax.runs.buckets import BucketPath
from seggpt_jax.runs.paths import locate
from seggpt_jax.runs.staging import Growing, fetched, new_file, new_folder
from seggpt_jax.runs.workdir import check_workdir, prepare_workdir
from seggpt_jax.runs.writer import Writer, history
from seggpt_jax.weights import checkpoint
from seggpt_jax.weights.checkpoint import Checkpoints
from tests.support.buckets import forget


def test_paths_behave_as_those_of_a_disk(bucket, tmp_path):
    for root in (locate(tmp_path), locate(bucket)):
        assert not (root / "a").exists() and not (root / "a").is_dir()
        (root / "a/b").mkdir(parents=True, exist_ok=True)
        for name, text in (("a/x [1].txt", "one\ntwo"), ("a/b/y.json", "é"), ("z", "")):
            (root / name).write_text(text, encoding="utf-8")
        assert (root / "a").is_dir() and not (root / "a").is_file()
        assert (root / "z").is_file() and not (root / "z").is_dir()
        assert sorted(p.name for p in (root / "a").iterdir()) == ["b", "x [1].txt"]
        assert [p.name for p in root.glob("z*")] == ["z"]
        assert not list((root / "none").glob("*"))
        assert (root / "a/b/y.json").read_text(encoding="utf-8") == "é"
        assert (root / "a/b/y.json").read_bytes() == "é".encode()
        with (root / "a/x [1].txt").open(encoding="utf-8-sig", newline="") as file:
            assert [*file] == ["one\n", "two"]
        with (root / "a/x [1].txt").open("rb") as file:
            assert file.read(2) + file.read() == b"one\ntwo"
        assert checksums.files(root) == ["a/b/y.json", "a/x [1].txt", "z"]
        with pytest.raises(FileNotFoundError, match="none"):
            (root / "none").read_bytes()
        with pytest.raises(FileNotFoundError, match="none"):
            (root / "none").unlink()
        (root / "none").unlink(missing_ok=True)
        for name in ("a2/y", "a/a", "z2"):  # of names that begin alike, or are alike
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("")
        assert checksums.files(root / "a") == ["a", "b/y.json", "x [1].txt"]
        assert sorted(p.name for p in (root / "a").iterdir()) == ["a", "b", "x [1].txt"]
        staging.remove(root / "a2")
        (root / "z2").unlink()
        assert not (root / "z2").exists() and not (root / "a/x").exists()
        staging.remove(root / "a")
        staging.remove(root / "a")
        assert checksums.files(root) == ["z"]
        assert (root / "z").absolute() == root / "z" == locate(root / "z")


def test_a_new_file_appears_whole(bucket):
    path = locate(bucket) / "x.txt"
    path.write_text("old")
    with pytest.raises(KeyError), new_file(path) as new:
        new.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with new_file(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert locate(bucket).files() == ["x.txt"]


def test_a_folder_says_that_it_is_not_complete(bucket, monkeypatch):
    path = locate(bucket) / "x"
    for content in ("one", "two"):
        with new_folder(path, last="SUMS") as new:
            (new / "a").write_text(content)
            (new / content).mkdir()
            (new / content / "b").write_text(content)
            (new / "SUMS").write_text(content)
        assert path.files() == ["SUMS", "a", f"{content}/b"]
        with fetched(path) as here:
            assert (here / content / "b").read_text() == content
    sent = []

    def upload(path, file):
        sent.append(path.name)
        if path.name == "SUMS":
            raise OSError("cut")

    monkeypatch.setattr(BucketPath, "upload", upload)
    with pytest.raises(OSError, match="cut"), new_folder(path, last="SUMS") as new:
        for name in ("SUMS", "T", "a"):
            (new / name).write_text("three")
    assert sorted(sent) == ["SUMS", "T", "a"] and sent[-1] == "SUMS"
    assert path.exists() and not staging.complete(path)
    with pytest.raises(OSError, match=f"{path} is not complete"), fetched(path):
        pass
    monkeypatch.undo()


def test_growing_files_are_stored_when_it_is_due(bucket, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(staging.time, "monotonic", lambda: now[0])
    path = locate(bucket) / "run"
    growing = Growing(path)
    file = growing.here / "lines"
    for second, text in ((1.0, "a"), (1.5, "ab"), (2.5, "abc")):
        now[0] = second
        file.write_text(text)
        growing.renew()
        assert (path / "lines").read_text() == {1.0: "a", 1.5: "a", 2.5: "abc"}[second]
    with monkeypatch.context() as patch:
        patch.setattr(BucketPath, "upload", lambda *args: open("/none/x"))
        now[0] = 9.0
        file.write_text("abcd")
        growing.renew()
        assert "not stored yet: " in caplog.text
        with pytest.raises(OSError):
            growing.store()
    growing.close()
    assert (path / "lines").read_text() == "abcd" and not growing.here.exists()
    again = Growing(path, ("lines", "none"))
    assert (again.here / "lines").read_text() == "abcd"
    again.close()


def test_a_growing_folder_of_a_disk_is_itself(tmp_path):
    growing = Growing(tmp_path, ("x",))
    assert growing.here == tmp_path and not growing.due
    growing.renew()
    growing.close()
    assert not list(tmp_path.iterdir())


def test_uploads_take_a_twentieth_of_the_time(bucket, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(staging.time, "monotonic", lambda: now[0])

    def slow(path, file):
        now[0] += 2.0

    monkeypatch.setattr(BucketPath, "upload", slow)
    growing = Growing(locate(bucket))
    (growing.here / "x").write_text("x")
    growing.store()
    now[0] = 41.9
    assert not growing.due
    now[0] = 42.0
    assert growing.due
    growing.close()


def test_the_records_of_a_run(bucket, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = f"{bucket}/runs/x"
    picture = np.zeros((4, 4, 3), np.uint8)
    with Writer(folder, start=0) as records:
        records.scalars(1, {"loss": 1.0})
        records.scalars(2, {"loss": 0.5})
        records.images(2, "group/name", picture)
        records.store()
        assert history(folder, "loss") == [(1.0, 1), (0.5, 2)]
    (locate(folder) / writer.METRICS).write_text(
        (locate(folder) / writer.METRICS).read_text() + '{"step": 2, "cut'
    )
    with Writer(folder, start=1) as records:
        records.scalars(2, {"loss": 0.25})
    assert history(folder, "loss") == [(1.0, 1), (0.25, 2)]
    events, rest = [], []
    for name in locate(folder).files():
        (events if name.startswith("tensorboard/events.out") else rest).append(name)
    assert rest == ["metrics.jsonl", "pictures/0000002/group/name.png"]
    assert len(events) == 2
    assert all((locate(folder) / name).size() for name in events)
    assert not list(tmp_path.iterdir())


def test_a_workdir_belongs_to_its_config(bucket):
    folder = f"{bucket}/run"
    check_workdir(folder, "{}")
    assert not locate(bucket).files()
    prepare_workdir(folder, '{"a": 1}')
    check_workdir(folder, '{"a": 1}')
    with pytest.raises(ValueError, match=f"{folder} holds a run of another"):
        check_workdir(folder, '{"a": 2}')
    assert locate(folder).files() == ["config.json"]


def test_checkpoints_are_kept_and_restored(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = f"{bucket}/runs/x/checkpoints"
    state = {"params": {"w": jnp.arange(6.0).reshape(2, 3)}}
    checkpoints = Checkpoints(folder, keep=2)
    for step in (1, 2, 3):
        scaled = {"params": {"w": step * state["params"]["w"]}}
        checkpoints.save(step, scaled, {"step": step})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    checkpoints.close()
    again = Checkpoints(folder, keep=2)
    found, meta, step = again.restore(state)
    again.close()
    assert step == meta["step"] == 3
    np.testing.assert_array_equal(found["params"]["w"], 3 * state["params"]["w"])
    params, meta = checkpoint.restore_params(folder, "params", 2)
    np.testing.assert_array_equal(params["w"], 2 * state["params"]["w"])
    assert not list(tmp_path.iterdir())


def answering(status: int, message: str = ""):
    """A handler of the server that refuses."""

    def handle(request, response, *rest):
        _ = request.data
        response.status = http.HTTPStatus(status)
        response.json({"error": {"code": status, "message": message}})

    return handle


@pytest.mark.parametrize(
    "status, message, said",
    [
        (403, "x has no storage.objects.create", "permission denied .x has no stor"),
        (401, "Anonymous caller has none", "caller has none.*no credentials: gcloud"),
        (400, "odd", "odd"),
        (404, "", "there is no bucket 'bucket"),
    ],
)
def test_refusals_are_one_line(bucket, monkeypatch, status, message, said):
    for _, handlers in server.HANDLERS:
        for method in handlers:
            monkeypatch.setitem(handlers, method, answering(status, message))
    folder = f"{bucket}/run"
    whole = f"{folder} cannot be written: .*{said}"
    with pytest.raises(OSError, match=whole) as error:
        check_workdir(folder, "{}")
    assert "\n" not in str(error.value)
    if status != 404:
        with pytest.raises(OSError, match=f"^{folder}: ") as error:
            locate(folder).exists()
        assert "\n" not in str(error.value)


def test_a_cut_network_is_one_line(bucket, monkeypatch):
    monkeypatch.setattr("gcsfs.retry.asyncio.sleep", _at_once)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    forget()
    for do in (BucketPath.exists, BucketPath.read_bytes, BucketPath.files):
        with pytest.raises(OSError, match="^gs://b/x: .*127.0.0.1:9") as error:
            do(locate("gs://b/x"))
        assert "\n" not in str(error.value)


async def _at_once(seconds):
    pass
