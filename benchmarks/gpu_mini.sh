#!/usr/bin/env bash
# Trains a model of ten million parameters on a GPU: nine minutes at most. The release
# comes back in pieces.
#
#   python -m benchmarks.carry --data ../shared/data --out carried    before, elsewhere
#   benchmarks/gpu_mini.sh OUT carried
#   cat OUT/release.tar.* | tar x                                     afterwards
#
# OUT gets pieces of 15 MiB, the metrics and the log. STEPS are those of the schedule of
# learning rates; where the time ends first, the last step is saved and released.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:?usage: benchmarks/gpu_mini.sh OUT DATA}
data=${2:?usage: benchmarks/gpu_mini.sh OUT DATA}
limit=${LIMIT:-480} # seconds of training; 60 are left for the rest
steps=${STEPS:-3000}
batch=${BATCH:-256}
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
mkdir -p "$out"

# The run saves when it is told to end, and its progress is seen as it goes.
timeout --signal=TERM --kill-after=30 "$limit" python -m seggpt_jax.main \
    --config="benchmarks/gpu_mini.py:steps=$steps,batch=$batch" --workdir="$run/mini" \
    --config.data_dir="$data" --config.loader.workers="${WORKERS:-14}" \
    ${SETTINGS:-} 2>&1 | tee "$out/log.txt"
echo "training ended with status ${PIPESTATUS[0]} (124: at its limit)" | tee -a "$out/log.txt"
[ -d "$run/mini/checkpoints" ] || exit 1
cp "$run/mini/metrics.jsonl" "$out/"
python -m seggpt_jax.cli convert --input "$run/mini" --output "$run/release" &&
    tar -C "$run" -cf - release | split -b 15m -d - "$out/release.tar." &&
    ls -l "$out"
