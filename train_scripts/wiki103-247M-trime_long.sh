#!/usr/bin/env bash
# TrimeLM_long on WikiText-103: 247M parameters, segments of 3,072 tokens, a memory of 12,288 tokens over 4 GPUs.
# Published perplexity, dev / test: 17.01 / 17.64 with local and long-term memory.
# An update is 4 GPUs x 3,072 tokens x 6 = 73,728 tokens; published on 4 RTX 3090 of 24 GB. The memory needs NGPU x
# MAX_TOKENS to be a multiple of TRAIN_MEM_SIZE: one large GPU trains with NGPU=1 MAX_TOKENS=12288.
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" wiki103-247M-trime_long wiki103-247M
: "${TRAIN_MEM_SIZE:=12288}"
[ "$smoke" = 1 ] && TRAIN_MEM_SIZE="$MAX_TOKENS"
whole TRAIN_MEM_SIZE 1 9
MEMORY_TOKENS="$TRAIN_MEM_SIZE"
train --criterion trime_long_loss --train-mem-size "$TRAIN_MEM_SIZE" --keep-order --ce-warmup-epoch 9 "$@"
