#!/usr/bin/env bash
# TrimeLM_long on enwik8: 38M parameters, segments of 512 characters, a memory of 12,288 on each GPU.
# Published bits per character, dev / test: 1.08 / 1.05 with local and long-term memory.
# An update is 4 GPUs x 12,288 characters = 49,152; published on 4 RTX 3090 of 24 GB.
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" enwik8-38M-trime_long enwik8-38M
MEMORY_TOKENS="$MAX_TOKENS"
train --criterion trime_long_loss_same_device --keep-order --ce-warmup-epoch 3 "$@"
