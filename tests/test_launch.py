"""The files of launch/, as far as they can be tried without a cluster: scripts run
against stand-ins of what they call, and the rest is read."""

import configparser
import fnmatch
import math
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY

LAUNCH = REPOSITORY / "launch"
SCRIPTS = [LAUNCH / "slurm.sbatch", LAUNCH / "tpu_pod.sh"]
STOPPED = 75
ARGUMENTS = ["--config=configs/vitl.py", "--workdir=/a folder", "--config.best=it's"]
# Parses command lines, one a line, as the program does, each in a process of its own.
PARSE = """
import os, shlex, sys
from seggpt_jax import main
for line in sys.stdin.read().splitlines():
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            sys.exit(line)
    else:
        sys.argv = ["main", *shlex.split(line)]  # where settings of a config are found
        main.parse_flags(sys.argv)
        os._exit(0)
"""


def commands(text):
    """What the main command is given wherever a text calls it, its --config first."""
    text = re.sub(r"\\\n[# ]*", "", text)
    return re.findall(r"--config=\S+ --workdir=.*", text)


def job():
    """The JobSet, its one kind of job, and a pod of it."""
    jobset = yaml.safe_load((LAUNCH / "gke.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    return jobset, replicated, spec, spec["template"]["spec"]


def stand_in(folder, name, program):
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{program}\n")
    path.chmod(0o755)


def call(script, *arguments, path, **environment):
    return subprocess.run(
        ["bash", LAUNCH / script, *arguments], capture_output=True, text=True,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **environment},
    )  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_the_program_understands_every_command():
    files = [*SCRIPTS, LAUNCH / "Dockerfile", REPOSITORY / "docs/scaling.md"]
    found = {path.name: commands(path.read_text()) for path in files}
    assert all(found.values()), found
    container = job()[3]["containers"][0]
    assert container["command"] == ["python", "-m", "seggpt_jax.main"]
    given = [*sum(found.values(), []), shlex.join(container["args"])]
    done = subprocess.run(
        [sys.executable, "-c", PARSE], input="\n".join(given), cwd=REPOSITORY,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("hosts", [1, 4])
def test_every_host_of_a_tpu_runs_the_program(tmp_path, hosts):
    points = ", ".join(["{}"] * hosts)
    stand_in(tmp_path, "gcloud", f"""
        printf '%s\\n' "$*" >> {tmp_path}/calls
        case $4 in
            describe) echo '{{"networkEndpoints": [{points}]}}' ;;
            ssh) for last; do :; done; HOME={tmp_path} bash -c "${{last#--command=}}" ;;
        esac""")  # fmt: skip
    program = tmp_path / "seggpt_jax/.venv/bin"
    program.mkdir(parents=True)
    stand_in(program, "python", "printf '%s\\n' \"$@\"; exit 3")
    done = call("tpu_pod.sh", "pod", "zone-a", *ARGUMENTS, path=tmp_path)
    several = ["--distributed=on"] if hosts > 1 else []
    assert done.stdout.splitlines() == ["-m", "seggpt_jax.main", *several, *ARGUMENTS]
    assert done.returncode == 3, done.stderr
    described, ran = (tmp_path / "calls").read_text().splitlines()
    assert described.startswith("compute tpus tpu-vm describe pod --zone=zone-a")
    assert ran.startswith("compute tpus tpu-vm ssh pod --zone=zone-a --worker=all ")


def test_the_tpu_script_without_arguments_says_how_it_is_used(tmp_path):
    done = call("tpu_pod.sh", path=tmp_path)
    assert done.returncode == 2 and "launch/tpu_pod.sh NAME ZONE" in done.stderr


@pytest.mark.parametrize("status, requeued", [(0, False), (STOPPED, True), (2, False)])
def test_slurm_starts_again_what_was_stopped(tmp_path, status, requeued):
    stand_in(tmp_path, "srun", f'printf "%s\\n" "$@"; exit {status}')
    stand_in(tmp_path, "scontrol", f'echo "$@" > {tmp_path}/control')
    done = call("slurm.sbatch", *ARGUMENTS, path=tmp_path, SLURM_JOB_ID="17",
                SLURM_CPUS_PER_TASK="32", SLURM_SUBMIT_DIR=str(tmp_path))  # fmt: skip
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines() == [
        "--cpus-per-task=32", "python", "-m", "seggpt_jax.main",
        f"--stopped_status={STOPPED}", *ARGUMENTS,
    ]  # fmt: skip
    control = tmp_path / "control"
    assert control.exists() == requeued
    assert not requeued or control.read_text() == "requeue 17\n"


def test_a_jobset_fills_its_slice():
    jobset, replicated, spec, pod = job()
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert spec["completions"] == spec["parallelism"]
    assert replicated["replicas"] == 1 and spec["completionMode"] == "Indexed"
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    sizes = [int(size) for size in topology.split("x")]
    assert math.prod(sizes) == spec["completions"] * chips
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_a_jobset_starts_again_what_was_stopped():
    """And saves before it stops, where all hosts see it."""
    jobset, _, spec, pod = job()
    (container,) = pod["containers"]
    assert spec["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 120
    codes = [r["onExitCodes"] for r in spec["podFailurePolicy"]["rules"] if len(r) > 1
             and "onExitCodes" in r]  # fmt: skip
    assert codes == [
        {"containerName": container["name"], "operator": "In", "values": [STOPPED]}
    ]
    assert f"--stopped_status={STOPPED}" in container["args"]
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0

    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    for argument, name in (("--workdir", "runs"), ("--config.data_dir", "data")):
        (value,) = [a for a in container["args"] if a.startswith(f"{argument}=")]
        assert value.split("=")[1].startswith(mounts[name]["mountPath"])
        assert "persistentVolumeClaim" in volumes[name]
    assert not mounts["runs"].get("readOnly")


def test_the_image_copies_what_is_there():
    text = (LAUNCH / "Dockerfile").read_text()
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = [line[1:].rstrip("/") for line in ignored if line.startswith("!")]
    copied = [name for line in re.findall("^COPY (.*)", text, re.MULTILINE)
              for name in line.split()[:-1]]  # fmt: skip
    assert sorted(copied) == sorted(kept)
    assert all((REPOSITORY / name).exists() for name in copied)
    assert not fnmatch.filter(re.findall(r"^USER (.*)", text, re.MULTILINE), "root")
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    for extras in re.findall(r"EXTRAS=([\w,]+)", text):
        assert set(extras.split(",")) <= set(setup["options.extras_require"])
