#!/usr/bin/env bash
# TrimeLM on enwik8: 38M parameters, segments of 512 characters.
# Published bits per character, dev / test: 1.14 / 1.12 with local memory.
# An update is 4 GPUs x 12,288 characters = 49,152; published on 4 RTX 3090 of 24 GB.
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" enwik8-38M-trime enwik8-38M
train --criterion trime_loss --ce-warmup-epoch 3 "$@"
