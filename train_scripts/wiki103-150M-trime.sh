#!/usr/bin/env bash
# TrimeLM on WikiText-103: 150M parameters, segments of 150 tokens.
# Published perplexity, dev / test: 24.45 / 25.61 with local memory.
# An update is 4 GPUs x 9,000 tokens x 2 = 72,000 tokens; published on 4 RTX 3090 of 24 GB.
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" wiki103-150M-trime wiki103-150M
train --criterion trime_loss --ce-warmup-epoch 3 "$@"
