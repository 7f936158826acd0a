#!/usr/bin/env bash
# TrimeLM on WikiText-103: 247M parameters, segments of 3,072 tokens.
# Published perplexity, dev / test: 17.10 / 17.76 with local memory.
# An update is 4 GPUs x 3,072 tokens x 6 = 73,728 tokens; published on 4 RTX 3090 of 24 GB.
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" wiki103-247M-trime wiki103-247M
train --criterion trime_loss --ce-warmup-epoch 9 "$@"
