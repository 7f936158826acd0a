#!/usr/bin/env bash
# TrimeLM_long on WikiText-103: 150M parameters, segments of 150 tokens, a memory of 9,000 tokens on each GPU.
# Published perplexity, dev / test: 21.76 / 22.62 with local and long-term memory.
# An update is 4 GPUs x 9,000 tokens x 2 = 72,000 tokens; published on 4 RTX 3090 of 24 GB.
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" wiki103-150M-trime_long wiki103-150M
MEMORY_TOKENS="$MAX_TOKENS"
train --criterion trime_long_loss_same_device --keep-order --ce-warmup-epoch 3 "$@"
