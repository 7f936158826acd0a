#!/usr/bin/env bash
# The external memory of a model: datastore of a text and its index, beside the checkpoint.
#
#   bash scripts/external_memory.sh CHECKPOINT DATA [FLAGS OF fairseq-eval-lm ...]
#
# writes dstore* and knn.index.ip into the checkpoint's folder (OUT=DIR: elsewhere). Run again, it continues.
# The defaults are those of the published wiki103-247M-trime_ext; other models need other --tokens-per-sample
# and --context-window, another corpus another --gen-subset or DATA. STREAM=1 stores no keys: 6.6 GB in
# place of 211 GB for WikiText-103. INDEX="--factory ..." chooses another index.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash scripts/external_memory.sh CHECKPOINT DATA [FLAGS OF fairseq-eval-lm ...]" >&2; exit 2; }
checkpoint=$1
data=$2
shift 2
out=${OUT:-$(dirname "$checkpoint")}
here=$(cd "$(dirname "$0")/.." && pwd)
[ ! -d "$here/.venv/bin" ] || PATH="$here/.venv/bin:$PATH"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
mkdir -p "$out"

evaluation=("$data" --user-dir "$here/trime_fairseq" --task trime_language_modeling --path "$checkpoint"
    --sample-break-mode none --gen-subset train --tokens-per-sample 3072 --context-window 2560
    --softmax-batch 1024 --batch-size 1 --distributed-world-size 1 --context-full-only "$@")
# shellcheck disable=SC2206  # several words
index=(--dstore-mmap "$out/dstore" --faiss-index "$out/knn.index" --dist ip ${INDEX:-})
if [ "${STREAM:-}" ]; then
    trime-build-index --streaming --dstore-fp16 "${index[@]}" "${evaluation[@]}"
else
    fairseq-eval-lm "${evaluation[@]}" --save-knnlm-dstore --dstore-mmap "$out/dstore" --dstore-fp16
    trime-build-index "${index[@]}"
fi
