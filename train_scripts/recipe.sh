# What the recipes share; sourced by them:  . recipe.sh NAME FAMILY;  train FLAGS
#
# Environment:
#   NGPU          devices (default 4, as published)
#   DATA          binarised data (default data-bin/wikitext-103, data-bin/enwik8 or data-bin/iwslt14)
#   SAVE_DIR      checkpoints (default output/NAME)
#   MAX_TOKENS    tokens of a device's batch (default as published)
#   BATCH_TOKENS  tokens of an update, over devices and accumulation (default as published)
#   UPDATE_FREQ   accumulated batches (default BATCH_TOKENS / NGPU / MAX_TOKENS)
#   PRECISION     --fp16 (default; iwslt14: empty), --bf16, or empty for float32
#   SEED          default 1
#   SMOKE=1       a model of 2 narrow layers, 3 updates, on the CPU: shows that the recipe runs
# Arguments: --dry-run prints the command; all others are passed to fairseq-train, after the recipe's own.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
command -v fairseq-train > /dev/null || PATH="$root/.venv/bin:$PATH" # where make test installs
name="$1"
family="$2"
smoke="${SMOKE:-0}"
: "${NGPU:=4}" "${SEED:=1}"

# whole NAME LEAST DIGITS: stops unless the variable is a plain whole number. Bash evaluates whatever else it finds
# in arithmetic, commands included.
whole() {
    local value="${!1-}"
    if ! [[ $value =~ ^(0|[1-9][0-9]{0,$(($3 - 1))})$ ]] || [ "$value" -lt "$2" ]; then
        echo "$name: $1=$(printf %q "$value") must be a whole number of at least $2 and at most $3 digits" >&2
        exit 2
    fi
}

if [[ $smoke != [01] ]]; then
    echo "$name: SMOKE=$(printf %q "$smoke") must be 1, or 0 for the whole training" >&2
    exit 2
fi

wiki103_schedule=(
    --max-update 286000 --optimizer nag --clip-norm 0.1
    --lr-scheduler cosine --lr 1.0 --min-lr 0.0001 --stop-min-lr 1e-09 --t-mult 2 --lr-period-updates 270000
    --lr-shrink 0.75 --warmup-updates 16000 --warmup-init-lr 1e-07
)
adam=(--optimizer adam --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --clip-norm 0.0)
task=(--task trime_language_modeling)
one_width=(--adaptive-input --tie-adaptive-weights --adaptive-input-factor 1 --adaptive-softmax-factor 1)

case "$family" in
wiki103-247M) # follows fairseq's own recipe for WikiText-103
    model=(--arch transformer_lm_wiki103)
    schedule=("${wiki103_schedule[@]}")
    : "${DATA:=data-bin/wikitext-103}" "${SEGMENT:=3072}" "${MAX_TOKENS:=3072}" "${BATCH_TOKENS:=73728}"
    ;;
wiki103-150M)
    model=(--arch transformer_lm_wiki103_150M "${one_width[@]}"
        --adaptive-input-cutoff 20000,60000 --adaptive-softmax-cutoff 20000,60000)
    schedule=("${adam[@]}" --max-update 200000 --lr 0.0005 --lr-scheduler inverse_sqrt
        --warmup-updates 8000 --warmup-init-lr 1e-07)
    : "${DATA:=data-bin/wikitext-103}" "${SEGMENT:=150}" "${MAX_TOKENS:=9000}" "${BATCH_TOKENS:=72000}"
    ;;
enwik8-38M)
    model=(--arch transformer_lm_enwik8 "${one_width[@]}"
        --adaptive-input-cutoff 208 --adaptive-softmax-cutoff 208)
    schedule=("${adam[@]}" --max-update 400000 --lr 0.00025 --min-lr 0.0
        --lr-scheduler cosine --warmup-updates 0)
    : "${DATA:=data-bin/enwik8}" "${SEGMENT:=512}" "${MAX_TOKENS:=12288}" "${BATCH_TOKENS:=49152}"
    ;;
iwslt14) # of fairseq's own recipe for IWSLT'14, with a decoder that normalises before; languages as DATA says
    task=(--task trime_translation)
    model=(--arch transformer_iwslt_de_en --share-decoder-input-output-embed --decoder-normalize-before --dropout 0.3)
    schedule=(--optimizer adam --adam-betas "(0.9, 0.98)" --weight-decay 0.0001 --clip-norm 0.0 --max-epoch 50
        --lr 0.0005 --lr-scheduler inverse_sqrt --warmup-updates 4000
        --eval-bleu --eval-bleu-args '{"beam": 5, "max_len_a": 1.2, "max_len_b": 10}' --eval-bleu-detok moses
        --eval-bleu-remove-bpe --best-checkpoint-metric bleu --maximize-best-checkpoint-metric)
    # SEGMENT is of language models.
    : "${DATA:=data-bin/iwslt14}" "${SEGMENT:=1}" "${MAX_TOKENS:=4096}" "${BATCH_TOKENS:=16384}" "${PRECISION=}"
    ;;
*)
    echo "$name: unknown family $family" >&2
    exit 2
    ;;
esac
: "${PRECISION=--fp16}"
if ! [[ $PRECISION =~ ^(--[a-z0-9-]+)?$ ]]; then
    echo "$name: PRECISION=$(printf %q "$PRECISION") must be --fp16, --bf16, or empty for float32" >&2
    exit 2
fi

smoke_flags=()
if [ "$smoke" = 1 ]; then
    NGPU=1 PRECISION="" SEGMENT=128 MAX_TOKENS=512 BATCH_TOKENS=1024
    dictionary="dict.txt"
    [ "$family" != iwslt14 ] || dictionary="dict.*.txt"
    if ! compgen -G "$DATA/$dictionary" > /dev/null; then
        echo "$name: DATA=$(printf %q "$DATA") holds no $dictionary: make it with get_data.sh or fairseq-preprocess" >&2
        exit 2
    fi
    export CUDA_VISIBLE_DEVICES="" # fairseq starts a process for each GPU it sees
    smoke_flags=(--cpu --decoder-layers 2 --decoder-embed-dim 32 --decoder-ffn-embed-dim 64 --decoder-attention-heads 2
        --max-update 3 --warmup-updates 1 --log-interval 1 --no-progress-bar)
    if [ "$family" = iwslt14 ]; then
        smoke_flags+=(--encoder-layers 2 --encoder-embed-dim 32 --encoder-ffn-embed-dim 64 --encoder-attention-heads 2
            --eval-bleu-args '{"beam": 1, "max_len_b": 10}')
    else
        types=$(($(wc -l < "$DATA/dict.txt") + 4))
        cutoffs="$((types / 4)),$((types / 2))"
        [ "$family" = enwik8-38M ] && cutoffs="$types"
        smoke_flags+=(--decoder-input-dim 32 --decoder-output-dim 32 --ce-warmup-epoch 0
            --adaptive-input-cutoff "$cutoffs" --adaptive-softmax-cutoff "$cutoffs")
    fi
    [ "$family" = wiki103-247M ] && smoke_flags+=(--lr-period-updates 2)
fi

whole NGPU 1 4
whole MAX_TOKENS 1 9
whole BATCH_TOKENS 1 9
whole SEGMENT 1 9
whole SEED 0 9
[ -z "${UPDATE_FREQ:-}" ] || whole UPDATE_FREQ 1 5
per_step=$((NGPU * MAX_TOKENS))
if [ -z "${UPDATE_FREQ:-}" ]; then
    if [ $((BATCH_TOKENS % per_step)) != 0 ]; then
        echo "$name: BATCH_TOKENS=$BATCH_TOKENS is no multiple of NGPU x MAX_TOKENS = $NGPU x $MAX_TOKENS" >&2
        echo "set UPDATE_FREQ, or another MAX_TOKENS or BATCH_TOKENS" >&2
        exit 2
    fi
    UPDATE_FREQ=$((BATCH_TOKENS / per_step))
fi
: "${SAVE_DIR:=output/$name}" "${MEMORY_TOKENS:=$SEGMENT}"
whole MEMORY_TOKENS 1 18 # which is only told

# train FLAGS: fairseq-train with the recipe's flags, then these.
train() {
    local dry=0 flags=() text=() command
    for flag in "$@"; do
        if [ "$flag" = --dry-run ]; then dry=1; else flags+=("$flag"); fi
    done
    # Sentence pairs are batched as they are, in multiples of 8 as published.
    [ "$family" = iwslt14 ] || text=(--tokens-per-sample "$SEGMENT" --sample-break-mode none
        --skip-invalid-size-inputs-valid-test --required-batch-size-multiple 1)
    command=(fairseq-train "$DATA" --user-dir "$root/trime_fairseq" "${task[@]}"
        --save-dir "$SAVE_DIR" "${model[@]}" "${schedule[@]}" "${text[@]}"
        --max-tokens "$MAX_TOKENS" --update-freq "$UPDATE_FREQ"
        --distributed-world-size "$NGPU" --ddp-backend legacy_ddp --seed "$SEED" $PRECISION
        --no-epoch-checkpoints # an epoch is a few minutes to hours: 200 of them would fill the disk
        "${flags[@]}" "${smoke_flags[@]}")
    echo "$name: $NGPU devices x $MAX_TOKENS tokens x $UPDATE_FREQ = $((per_step * UPDATE_FREQ)) tokens per update," \
        "memory of $MEMORY_TOKENS tokens" >&2
    if [ "$dry" = 1 ]; then
        printf '%q ' "${command[@]}"
        echo
    else
        "${command[@]}"
    fi
}
