"""Training checkpoints, verified by checksums. Only this module knows orbax.

Orbax itself restores a checkpoint with flipped bits or an emptied folder, and does not
report it.
"""

import contextlib
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from seggpt_jax.runs import checksums, hosts, paths
from seggpt_jax.runs.buckets import BucketPath, outside
from seggpt_jax.trees import named_leaves

# Orbax writes these two after the sums, while it commits; restoring needs neither.
_AFTER_SUMS = ("_CHECKPOINT_METADATA", "commit_success.txt")
_NONE = -1  # stands for a step where no checkpoint is intact

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training run, in `folder/<step>/`, on a disk or in a
    bucket (gs://). The newest `keep` stay, and the one of step `best`, if set.

    Saves run in the background. After a failed save the next `save`, `wait`, `restore`
    or `close` raises OSError with the step and the folder; earlier checkpoints stay.
    Every process of a run must make the same calls.
    """

    def __init__(self, folder: str | os.PathLike, *, keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        _quiet_orbax()
        self.folder = _folder(folder)
        self.best: int | None = None
        self._keep = keep
        self._writing: int | None = None  # the step on its way to disk
        self._current: int | None = None  # the last step saved or restored
        self._bad: list[int] = []  # found by `restore`; the next save replaces them
        self._manager: ocp.CheckpointManager | None = None  # None after a failed save
        try:
            self._open()
        except OSError as error:
            raise OSError(
                f"checkpoint folder {self.folder} cannot be used: {_reason(error)}"
            ) from error

    def steps(self) -> list[int]:
        """Steps on disk, oldest first, intact or not."""
        return _steps(self.folder)

    def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
        """Starts to save; `state` may be donated or changed once this returns.

        state: a pytree of arrays, global ones when there are several processes.
        meta: JSON data. Saving the step that was saved or restored last does nothing.
        """
        self.wait()
        if step == self._current:
            return
        with self._named_errors(step):
            manager = self._open()
            for bad in self._bad:
                manager.delete(bad)
            self._bad = []
        if step in self.steps():
            raise ValueError(
                f"{self.folder} already has a checkpoint of step {step}: restore from "
                "this folder before saving to it, or use another folder"
            )
        self._writing = step
        with self._named_errors(step):
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(dict(meta))
            )
            manager.save(step, args=args, force=True)
        self._current = step

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, Any], int] | None:
        """The newest intact checkpoint, `(state, meta, step)`; None if there is none.

        abstract_state: a pytree of `jax.ShapeDtypeStruct` with shardings; the mesh may
        differ from the one that saved. Raises ValueError when the checkpoint holds
        other names, shapes or dtypes, and OSError when no checkpoint is intact.
        """
        self.wait()
        # One process decides, or processes could disagree on a failing disk.
        step, bad = hosts.on_first(lambda: _newest_intact(self.folder))
        if step == _NONE:
            if self.steps():
                raise OSError(_all_bad(self.folder, bad))
            return None
        self._bad = [s for s in self.steps() if s > step]
        manager = self._open()
        saved = manager.item_metadata(step).state.tree
        _check_same_model(self.folder / str(step), saved, abstract_state)
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract_state),
                meta=ocp.args.JsonRestore(),
            ),
        )
        self._current = step
        return restored.state, restored.meta, step

    def wait(self) -> None:
        """Returns when the save under way is on disk."""
        if self._manager:
            with self._named_errors(self._writing):
                self._manager.wait_until_finished()
        self._writing = None

    def close(self) -> None:
        """Waits, then frees orbax's threads."""
        self.wait()
        if self._manager:
            self._manager.close()
        self._manager = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self) -> ocp.CheckpointManager:
        if self._manager:
            return self._manager
        async_options = ocp.AsyncOptions(
            post_finalization_callback=self._write_sums,
            # Otherwise threads wait for minutes for a folder that could not be made,
            # and the process cannot end before them.
            create_directories_asynchronously=False,
        )
        self._manager = _Manager(
            outside(self.folder),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self,
                cleanup_tmp_directories=True,  # of a save that failed or was killed
                save_root_metadata=False,
                lightweight_initialize=True,  # reads no file of a bad checkpoint
                async_options=async_options,
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "meta": ocp.JsonCheckpointHandler(),
            },
        )
        return self._manager

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Which checkpoints to keep: orbax asks after a save; oldest first."""
        newest = len(checkpoints) - self._keep
        return [
            number >= newest or saved.step == self.best
            for number, saved in enumerate(checkpoints)
        ]

    def _write_sums(self) -> None:
        # Orbax calls this on process 0, after all data is written and before it renames
        # the temporary folder: a checkpoint appears with its sums or not at all. A
        # bucket cannot rename: there the folder has its final name from the start.
        ours = re.compile(rf"{self._writing}(\..*)?")
        (written,) = (p for p in self.folder.iterdir() if ours.fullmatch(p.name))
        checksums.write(written, but=_AFTER_SUMS)

    @contextlib.contextmanager
    def _named_errors(self, step: int | None) -> Iterator[None]:
        """Turns a failed save into one OSError."""
        try:
            yield
        except Exception as error:
            self._writing = self._current = None
            # The manager may hold threads, further errors (`close` raises one at a
            # time) and half a folder: the next call opens a new manager, which deletes
            # the folder.
            for _ in range(3):
                with contextlib.suppress(Exception):
                    if self._manager:
                        self._manager.close()
            self._manager = None
            raise OSError(
                f"the checkpoint of step {step} could not be saved in {self.folder}: "
                f"{_reason(error)}. Earlier checkpoints are untouched"
            ) from error


class _Manager(ocp.CheckpointManager):
    """Does not look for SIGTERMs: the training loop does.

    After a SIGTERM orbax's own manager reads the times of earlier checkpoints. It fails
    because `lightweight_initialize` leaves them out.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def restore_params(
    folder: str | os.PathLike, which: str = "params", step: int | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of one checkpoint, as nested dicts of NumPy arrays.

    which: the entry of the saved state, `params` or, if the run kept one, `ema`. step:
    of the checkpoint; None takes the newest intact one.
    Returns `(params, meta)` and changes nothing in `folder`. Raises FileNotFoundError
    when there is no checkpoint, OSError when none is intact, ValueError for a `which`
    that was not saved.
    """
    _quiet_orbax()
    where = _folder(folder)
    if step is not None and step not in _steps(where):
        raise FileNotFoundError(f"{where} holds no checkpoint of step {step}")
    step, bad = _newest_intact(where, None if step is None else [step])
    if step == _NONE and not bad:
        raise FileNotFoundError(f"{where} holds no checkpoint")
    if step == _NONE:
        raise OSError(_all_bad(where, bad))
    saved = outside(where / str(step))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(saved / "state").item_metadata.tree
        if not tree.get(which):
            raise ValueError(
                f"{saved} has no {which!r}; it holds {', '.join(sorted(tree))}"
            )
        item = {which: tree[which]}
        to_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item
        )
        args = ocp.args.PyTreeRestore(
            item=item, restore_args=to_numpy, partial_restore=True
        )
        params = reader.restore(saved / "state", args=args)[which]
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(saved / "meta", args=ocp.args.JsonRestore())
    return params, meta


def _folder(path: str | os.PathLike) -> paths.AnyPath:
    """A folder here, or in a bucket (gs://). ValueError for any other place."""
    paths.check("checkpoint folder", path, paths.BUCKET)
    folder = paths.locate(path)
    return folder if isinstance(folder, BucketPath) else Path(os.path.abspath(path))


def _steps(folder: paths.AnyPath) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal())


def _newest_intact(
    folder: paths.AnyPath, steps: Sequence[int] | None = None
) -> tuple[int, list[str]]:
    """The newest intact step, or `_NONE`; and a fault for each newer one.

    steps: look at these only, instead of all on disk.
    """
    bad: list[str] = []
    for step in reversed(_steps(folder) if steps is None else steps):
        saved = folder / str(step)
        fault = checksums.fault(saved, set(checksums.files(saved)) - set(_AFTER_SUMS))
        if fault is None:
            return step, bad
        bad.append(f"step {step}: {fault}")
        _log.warning("skipped the checkpoint of step %d: %s", step, fault)
    return _NONE, bad


def _all_bad(folder: paths.AnyPath, bad: list[str]) -> str:
    listed = "\n".join(f"  {line}" for line in bad)
    return (
        f"no checkpoint in {folder} is intact:\n{listed}\nRepair one from a copy, or "
        "delete the folder (or choose another workdir) to start from step 0"
    )


def _check_same_model(
    path: paths.AnyPath, saved_tree: Any, abstract_state: Any
) -> None:
    saved = _specs(saved_tree)
    wanted = _specs(jax.eval_shape(_plain_keys, abstract_state))
    wrong = [f"  missing from the checkpoint: {n}" for n in wanted if n not in saved]
    wrong += [f"  only in the checkpoint: {n}" for n in saved if n not in wanted]
    wrong += [
        f"  {n}: {saved[n]} in the checkpoint, {wanted[n]} in this model"
        for n in wanted
        if n in saved and saved[n] != wanted[n]
    ]
    if wrong:
        raise ValueError(
            f"{path} is a checkpoint of another model (use its config, or another "
            "folder):\n" + "\n".join(wrong)
        )


def _plain_keys(tree: Any) -> Any:
    """Typed PRNG keys as the uint32 arrays that orbax stores."""

    def plain(leaf):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if is_key else leaf

    return jax.tree.map(plain, tree)


def _specs(tree: Any) -> dict[str, str]:
    """Name -> dtype and shape of every leaf, names joined by slashes."""
    return {
        name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
        for name, leaf in named_leaves(tree).items()
    }


def _reason(error: Exception) -> str:
    """The operating system's text: tensorstore hides the errno in a long message."""
    errno = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(errno[1])) if errno else str(error)


def _quiet_orbax() -> None:
    """Drops orbax's log records: this module raises its errors, the rest is noise.

    After a failed save asyncio reports the futures that orbax leaves behind; these
    records are dropped too.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_orbax)


def _not_orbax(record: logging.LogRecord) -> bool:
    paths = [record.pathname]
    if record.exc_info and record.exc_info[2]:
        paths += [f.filename for f in traceback.extract_tb(record.exc_info[2])]
    return not any(f"{os.sep}orbax{os.sep}" in path for path in paths)
