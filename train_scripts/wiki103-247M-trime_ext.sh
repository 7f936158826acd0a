#!/usr/bin/env bash
# TrimeLM_ext on WikiText-103: 247M parameters, segments of 3,072 tokens, batches of similar segments.
# Published perplexity, dev / test: 15.54 / 15.46 with local, long-term and external memory.
# An update is 4 GPUs x 3,072 tokens x 6 = 73,728 tokens; published on 4 RTX 3090 of 24 GB.
# The memory is the batches of all devices, NGPU x MAX_TOKENS = 12,288 tokens as published: one large GPU trains with
# NGPU=1 MAX_TOKENS=12288, eight with MAX_TOKENS=3072 have a memory of 24,576.
# PREDEFINED_BATCHES: JSON list of segments, neighbours similar: the batches.json that
#     bash scripts/bm25_batches.sh data-bin/wikitext-103 3072 bm25/wiki103-l3072
# makes; the authors offer theirs, for their WikiText-103, at
# https://nlp.cs.princeton.edu/projects/trime/bm25_batch/wiki103-l3072-batches.json
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" wiki103-247M-trime_ext wiki103-247M
: "${PREDEFINED_BATCHES:=$DATA/wiki103-l3072-batches.json}"
MEMORY_TOKENS="$per_step"
train --criterion trime_ext_loss --predefined-batches "$PREDEFINED_BATCHES" --cross-sent-ratio 0.9 \
    --ce-warmup-epoch 9 "$@"
