#!/usr/bin/env bash
# Trains on a Cloud TPU slice: the main command, on every host (launch/README.md).
#
#   launch/tpu_pod.sh NAME ZONE --config=configs/vitl.py --workdir=DIR [--config.x=y ...]
#
# NAME must exist and hold this repository in ~/seggpt_jax, installed there by
#   pip install -e '.[tpu]'
# DIR is a path on the host: put it on a disk that outlives the slice.
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
    # Each host would train a model of its own into the same folder.
    echo "error: $name has $hosts hosts; training across hosts is planned" >&2
    exit 2
fi

exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="cd ~/seggpt_jax && exec python3 -m seggpt_jax.main $(printf '%q ' "$@")"
