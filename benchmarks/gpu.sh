#!/usr/bin/env bash
# Inference on a GPU, beside the port, and attention: six minutes at most.
#
#   benchmarks/gpu.sh OUT          rows as OUT/*.jsonl, what failed in OUT/failed.txt
#   SIZE=ti16 DTYPE=float32 benchmarks/gpu.sh OUT    smaller, for a CPU
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
rm -f "$out/failed.txt"

# Rows are printed as they come. One that fails, or takes longer than its limit in
# seconds, must not take the others' time on the machine with it.
try() {
    local limit=$1
    shift
    echo "== ${limit} s at most: $*"
    timeout "$((limit * ${PATIENCE:-1}))" python -m "$@" || echo "$?: $*" >>"$out/failed.txt"
}

for batch in $batches; do
    try 100 benchmarks.inference --size "$size" --dtype "$dtype" --prompts $prompts \
        --batch "$batch" --repeats "$repeats" --out "$out/inference.jsonl"
done
try 70 benchmarks.attention --shapes $shapes --dtype "$dtype" --repeats "$repeats" \
    --out "$out/attention.jsonl"
for implementation in ${ATTENTION:-xla cudnn cudnn_bias}; do
    try 30 benchmarks.inference --size "$size" --dtype "$dtype" --alone \
        --attention "$implementation" --prompts 1 --batch ${batches##* } \
        --repeats "$repeats" --out "$out/inference.jsonl"
done
test ! -s "$out/failed.txt"
