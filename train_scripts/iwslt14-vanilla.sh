#!/usr/bin/env bash
# Transformer on IWSLT'14 German-English: the baseline, and the model of kNN-MT.
# Published test BLEU: 32.58; with kNN-MT 33.15. Its training is not published beyond this criterion: the label
# smoothing is that of fairseq's own recipe, all else is as for TrimeMT.
# A step is 4 GPUs x 4,096 tokens = 16,384; published on 4 RTX 3090 of 24 GB, in float32.
# Then: bash scripts/translation_memory.sh output/iwslt14-vanilla/checkpoint_best.pt data-bin/iwslt14 l2
#       python run_pretrained/evaluate.py iwslt14-vanilla iwslt14-knn --pretrained-models output
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh" iwslt14-vanilla iwslt14
MEMORY_TOKENS=0
train --criterion label_smoothed_cross_entropy --label-smoothing 0.1 "$@"
