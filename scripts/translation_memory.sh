#!/usr/bin/env bash
# The memory of a translation model: datastore of the training text and its index, beside the checkpoint.
#
#   bash scripts/translation_memory.sh CHECKPOINT DATA {ip | l2} [FLAGS OF fairseq-generate ...]
#
# writes dstore/ with keys.npy, vals.npy and knn_index.ip (or .l2) into the checkpoint's folder (OUT=DIR: elsewhere).
# ip is for TrimeMT, l2 for kNN-MT. Run again, it continues. The index is the published one, of 4,096 lists and 64 bytes
# a key; INDEX="--factory ..." chooses another: fewer than 160,000 target tokens need fewer lists.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash scripts/translation_memory.sh CHECKPOINT DATA {ip | l2} [FLAGS ...]" >&2; exit 2; }
checkpoint=$1 data=$2 metric=$3
shift 3
store=${OUT:-$(dirname "$checkpoint")}/dstore
here=$(cd "$(dirname "$0")/.." && pwd)
[ ! -d "$here/.venv/bin" ] || PATH="$here/.venv/bin:$PATH"
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
mkdir -p "$store"

fairseq-generate "$data" --user-dir "$here/trime_fairseq" --task trime_translation --path "$checkpoint" \
    --gen-subset train --score-reference --max-tokens 4096 --skip-invalid-size-inputs-valid-test \
    --save-knnlm-dstore --dstore-mmap "$store/" --dstore-fp16 "$@"
# shellcheck disable=SC2086  # several words
trime-build-index --dstore_mmap "$store/" --faiss_index "$store/knn_index" --dist "$metric" --probe 32 ${INDEX:-}
