#!/usr/bin/env bash
# Train steps on a GPU, beside the port: six minutes at most.
#
#   benchmarks/gpu_train.sh OUT          rows in OUT/train.jsonl, failures in OUT/failed.txt
#   SIZE=ti16 DTYPE=float32 benchmarks/gpu_train.sh OUT    smaller, for a CPU
#
# Needs jax with CUDA and, to compare, torch with CUDA and transformers. Copy the rows to
# benchmarks/results/ and a table of docs/results.md.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:?usage: benchmarks/gpu_train.sh OUT}
size=${SIZE:-l16}
canvas=${CANVAS:-"896 448"}
steps=${STEPS:-10}
batches=${BATCHES:-"8 32 64"}
mkdir -p "$out"
rm -f "$out/failed.txt"

# Rows are printed as they come. One that fails, or takes longer than its limit in
# seconds, must not take the others' time on the machine with it.
train() {
    local limit=$1
    shift
    echo "== ${limit} s at most: benchmarks.train $*"
    timeout "$((limit * ${PATIENCE:-1}))" python -m benchmarks.train --size "$size" --canvas $canvas \
        --dtype "${DTYPE:-bfloat16}" --steps "$steps" --out "$out/train.jsonl" "$@" ||
        echo "$?: benchmarks.train $*" >>"$out/failed.txt"
}

# The port at its largest batch, ours beside it.
train 110 --port-batch ${PORT_BATCHES:-4 8 16} --batch ${batches%% *} --profile
train 110 --batch $batches --remat ${REMAT:-none dots full}
train 70 --batch ${batches%% *} --attention ${ATTENTION:-xla cudnn cudnn_bias} \
    --remat none
train 70 --batch ${batches%% *} --remat dots \
    --flags ${FLAGS:-no_latency_hiding latency_hiding no_command_buffers deterministic}
test ! -s "$out/failed.txt"
