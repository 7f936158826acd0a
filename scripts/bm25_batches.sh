#!/usr/bin/env bash
# Batches of similar training segments for trime_ext_loss, or of similar target sentences for trime_mt_loss: export,
# index, search, list, report.
#
#   bash scripts/bm25_batches.sh DATA_BIN {TOKENS_PER_SAMPLE | sentences} OUT
#
# writes OUT/segments/segments.json, OUT/bm25_index, OUT/bm25_results, OUT/batches.json and OUT/report. Run
# again, it continues; what is done is skipped. ENGINE is lucene, which needs Pyserini and Java (the default where
# Pyserini is installed), or bm25s; K is the number of neighbours (default: 50; of sentences 20).
# NUM_SHARDS=N SHARD_ID=I searches one of N parts, for machines that share a file system; the last makes the list.
set -euo pipefail
[ $# = 3 ] || { echo "usage: bash scripts/bm25_batches.sh DATA_BIN {TOKENS_PER_SAMPLE | sentences} OUT" >&2; exit 2; }
data=$1 tokens=$2 out=$3
here=$(cd "$(dirname "$0")/.." && pwd)
[ ! -d "$here/.venv/bin" ] || PATH="$here/.venv/bin:$PATH"
segments="$out/segments/segments.json"

if [ "$tokens" = sentences ]; then
    : "${K:=20}"
    trime-bm25 export "$data" --sentences --segments_path "$segments"
else
    trime-bm25 export "$data" --tokens_per_sample "$tokens" --sample_break_mode "${SAMPLE_BREAK_MODE:-none}" \
        --segments_path "$segments"
fi
trime-bm25 index --segments_path "$segments" --index_path "$out/bm25_index" ${ENGINE:+--engine "$ENGINE"}
trime-bm25 search --segments_path "$segments" --index_path "$out/bm25_index" --results_path "$out/bm25_results" \
    --k "${K:-50}" --num_shards "${NUM_SHARDS:-1}" --shard_id "${SHARD_ID:-0}"
trime-bm25 batches --results_path "$out/bm25_results" --batch_file "$out/batches.json" --if_complete
if [ -e "$out/batches.json" ]; then
    trime-bm25 report --segments_path "$segments" --batch_file "$out/batches.json" --output "$out/report"
fi
