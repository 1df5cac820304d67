#!/usr/bin/env bash
# Trains on a Cloud TPU slice: the main command, on every host (docs/scaling.md). The
# paper's ViT-L, on a slice of any size:
#
#   launch/tpu_pod.sh NAME ZONE --config=configs/vitl.py --workdir=DIR \
#       --config.data_dir=DATA --config.init_from=PAINTER --config.loader.workers=8
#
# NAME must exist, and every host of it hold this repository in ~/seggpt_jax, installed
# in ~/seggpt_jax/.venv with the extra `tpu`. DIR, DATA and PAINTER are paths on the
# hosts; DIR is one folder that all of them see, on a disk that outlives the slice. With
# the extra `gcs` each may be in a bucket (docs/scaling.md#buckets).
# Prints what the hosts say, and ends when all of them have, with a status that is not 0
# when one failed. Ctrl-C and a lost connection do not end the run.
set -euo pipefail

if (($# < 4)); then
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
name=$1 zone=$2
shift 2

hosts=$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format=json |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)["networkEndpoints"]))')
if ((hosts > 1)); then
    set -- --distributed=on "$@" # nothing on these hosts says that they are several
fi

program="exec .venv/bin/python -m seggpt_jax.main$(printf ' %q' "$@")"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="cd ~/seggpt_jax && $program"
