#!/usr/bin/env bash
# Every measurement that waits for a GPU, in one call of under ten minutes.
#
#   benchmarks/gpu.sh OUT          rows as OUT/*.jsonl, what failed in OUT/failed.txt
#   SIZE=ti16 DTYPE=float32 benchmarks/gpu.sh OUT    smaller, as the tests run it
#
# Needs jax with CUDA and, to compare, torch with CUDA and transformers. Copy the rows to
# benchmarks/results/, and put what is fastest into models/attention.py.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=${1:?usage: benchmarks/gpu.sh OUT}
size=${SIZE:-l16}
dtype=${DTYPE:-bfloat16}
shapes=${SHAPES:-"l16 l16x8"}
batches=${BATCHES:-"1 32"}
prompts=${PROMPTS:-"1 8"}
repeats=${REPEATS:-10}
mkdir -p "$out"

# One that fails must not take the others' time on the machine with it.
try() {
    local limit=$1
    shift
    timeout "$((limit * ${PATIENCE:-1}))" "$@" || echo "$?: $*" >>"$out/failed.txt"
}

try 120 python -m benchmarks.attention --shapes $shapes --dtype "$dtype" \
    --repeats "$repeats" --out "$out/attention.jsonl"
for implementation in ${ATTENTION:-xla cudnn cudnn_bias}; do
    try 60 python -m benchmarks.inference --size "$size" --dtype "$dtype" \
        --attention "$implementation" --prompts 1 --batch ${batches##* } \
        --repeats "$repeats" --out "$out/inference.jsonl"
done
for batch in $batches; do
    try 120 python -m benchmarks.inference --size "$size" --dtype "$dtype" \
        --prompts $prompts --batch "$batch" --repeats "$repeats" \
        --out "$out/inference.jsonl"
done
test ! -s "$out/failed.txt"
