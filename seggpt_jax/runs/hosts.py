"""Several processes as one run: how they join, agree, stop and fail together."""

import contextlib
import json
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

S = TypeVar("S")
T = TypeVar("T")
# Variables of launchers -> whether a value says that there are several processes.
_LAUNCHED: Mapping[str, Callable[[str], bool]] = {
    "JAX_COORDINATOR_ADDRESS": bool,
    "SLURM_STEP_NUM_TASKS": lambda count: int(count) > 1,
    "OMPI_COMM_WORLD_SIZE": lambda count: int(count) > 1,
    "TPU_WORKER_HOSTNAMES": lambda names: "," in names,
    "TPU_PROCESS_ADDRESSES": lambda names: "," in names,
    "MEGASCALE_NUM_SLICES": lambda count: int(count) > 1,
}
_ERRORS = (ValueError, OSError)  # errors for the user: raised on every process
_PIECE = 2**20  # bytes of every exchange: one program, and little memory of a device


def join(
    distributed: str = "auto",
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    heartbeat_s: int = 100,
) -> None:
    """Joins this process to the others of a run, before jax looks for devices.

    distributed: `on`, `off` or `auto`. `auto` joins if a launcher has started several
    processes (Slurm, Open MPI, GKE), or if `coordinator` (HOST:PORT) is given. Cloud
    TPU VMs outside GKE set no such variable, and need `on`. Arguments that are None are
    found out from the launcher. heartbeat_s: a process that is silent for so long is
    taken for dead, and all others end with a non-zero exit status. Raises ValueError if
    an argument is missing.
    """
    if distributed not in ("auto", "on", "off"):
        raise ValueError(f"--distributed={distributed}: must be auto, on or off")
    told = coordinator or any(
        name in os.environ and several(os.environ[name])
        for name, several in _LAUNCHED.items()
    )
    if distributed == "off" or (distributed == "auto" and not told):
        return
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, _own_gpus(),
            heartbeat_timeout_seconds=heartbeat_s,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"several processes could not be joined: {error} Give --coordinator="
            "HOST:PORT, --num_processes and --process_id, or --distributed=off"
        ) from error
    if not is_first():
        logging.set_verbosity(logging.WARNING)


def _own_gpus() -> list[int] | None:
    """All GPUs of the node if Slurm runs one process per node; else None.

    By default jax assumes one process per GPU under Slurm, and gives it one GPU."""
    tasks, nodes = (os.getenv(f"SLURM_STEP_NUM_{n}", "") for n in ("TASKS", "NODES"))
    gpus = os.getenv("SLURM_GPUS_ON_NODE", "")
    return list(range(int(gpus))) if tasks and tasks == nodes and gpus else None


def leave(status: int) -> None:
    """Ends this process as one of several; a single process goes on.

    Status 0 waits for the others and returns. Any other status exits at once, and so
    ends the others too."""
    if not jax.distributed.is_initialized():
        return
    if status == 0:
        jax.distributed.shutdown()
    else:  # sys.exit would wait for the others
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def is_first() -> bool:
    """Whether this process is the one that logs and writes."""
    return jax.process_index() == 0


def agree(value: Any) -> Any:
    """The first process's value on every process; plain JSON data."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value if is_first() else None).encode(), np.uint8)
    length = int(broadcast(np.asarray(len(text))))
    padded = np.zeros(length, np.uint8)
    padded[: len(text)] = text[:length]
    return json.loads(broadcast(padded).tobytes())


def broadcast(x: np.ndarray) -> np.ndarray:
    """The first process's array on every process; all give arrays of one shape."""
    with jax.transfer_guard("allow"):
        return np.asarray(multihost_utils.broadcast_one_to_all(x))


def on_first(function: Callable[[], Any]) -> Any:
    """Calls `function` on the first process only; returns its result on all.

    The result is plain JSON data. A ValueError or OSError is raised on all of them."""
    found, error = None, None
    if is_first():
        try:
            found = function()
        except _ERRORS as raised:
            error = raised
    kind = next((i for i, e in enumerate(_ERRORS) if isinstance(error, e)), None)
    found, kind, message = agree([found, kind, str(error)])
    if error:
        raise error
    if kind is not None:
        raise _ERRORS[kind](message)
    return found


def fetch(x: jax.Array | np.ndarray) -> np.ndarray:
    """An array from the devices, whole, on every process."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        with jax.transfer_guard("allow"):
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(jax.device_get(x))


def gather(tree: Any) -> Any:
    """Arrays `[rows, ...]` of every process, one after the other, on all of them."""
    if jax.process_count() == 1:
        return tree
    with jax.transfer_guard("allow"):
        return multihost_utils.process_allgather(tree, tiled=True)


def exchange(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers; they must pickle."""
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = gather(np.array([len(own)], np.int32)).tolist()
    padded = np.zeros((-(-max(lengths) // _PIECE), _PIECE), np.uint8)
    padded.reshape(-1)[: len(own)] = own
    whole = np.concatenate([gather(piece[None]) for piece in padded], axis=1)
    pairs = zip(whole, lengths, strict=True)
    return [pickle.loads(data[:length]) for data, length in pairs]


def deal(
    work: Callable[[Sequence[S]], Generator[T, None, None]], items: Sequence[S]
) -> Iterator[T]:
    """The results of `work(items)`, one for each item, in order and on every process.

    Process p of n works on the items p, p + n, p + 2n, ... alone, and the processes
    exchange the results. An error in an item is raised on all of them in its turn."""
    count = jax.process_count()
    with contextlib.closing(work(items[jax.process_index() :: count])) as own:
        for first in range(0, len(items), count):
            # The last round may have no item for this process.
            outcomes = exchange(_attempt(lambda: next(own, None)))
            for result, error in outcomes[: len(items) - first]:
                if error:
                    raise error
                yield result


def _attempt(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """The result of a function, or its error for the user."""
    try:
        return function(), None
    except _ERRORS as error:
        return None, error


@contextlib.contextmanager
def stop_on_sigterm() -> Iterator[Callable[[int], bool]]:
    """Gives a function of the step that tells whether to save and end; call it at every
    step.

    It is true after a SIGTERM, which no longer ends the process by itself. When one of
    several processes gets the signal, all stop at the same step."""
    if jax.process_count() > 1:  # jax itself has taken over the signal
        yield multihost_utils.reached_preemption_sync_point
        return
    stop = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        yield lambda step: stop.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
