#!/usr/bin/env bash
# Evaluates a model on everything that has data, and prints the paper's table row.
#   scripts/eval.sh MODEL [OUTPUT] [option ...]
# MODEL: a Hugging Face folder (scripts/merge.sh makes one) or a name of the hub. OUTPUT: a folder, default
# results/NAME in the project. Options go to every script of reason_test, e.g. --limit 100, --protocol paper.
# Data: $GIFT_DATA, or data/ (scripts/download_data.sh); a benchmark without data is left out and named.
# OPPONENT (random) and SPY_OPPONENT (speaker): a scripted player's name, or a player_info entry as JSON.
# JUDGE: a player_info entry for CommonGen's win-or-tie; COMMON_DATA: rows with human references for it.
# Killed and started again, it goes on where it was.
set -uo pipefail
case "${1:-}" in
    "" | -h | --help) sed -n '2,10s/^# \?//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$1; shift
[ -d "$model" ] && model=$(realpath "$model")
output=$(dirname "$here")/results/$(basename "$model")
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then output=$(realpath -m "$1"); shift; fi
common=(--model_path "$model" --output "$output" "$@")
missing=() failed=()

evaluate() { # NAME SCRIPT OPTION...: a script that has no data exits with 3
    local name=$1; shift
    echo "== $name"
    "$here/python.sh" "reason_test/$1" "${@:2}" "${common[@]}"
    case $? in
        0) ;;
        3) missing+=("$name") ;;
        130) exit 130 ;;
        *) failed+=("$name") ;;
    esac
}

extra=()
[ -n "${JUDGE:-}" ] && extra+=(--judge "$JUDGE")
[ -n "${COMMON_DATA:-}" ] && extra+=(--data "$(realpath -m "$COMMON_DATA")")
evaluate MATH500 lv3to5_dl.py
evaluate GSM8K math_dl.py
evaluate matrix-games nash-new.py
evaluate tic-tac-toe tictactoe.py --opponent "${OPPONENT:-random}"
evaluate undercover undercover.py --opponent "${SPY_OPPONENT:-speaker}"
evaluate MMLU mmlu_dl.py
evaluate MMLU-Pro mmlu_pro_dl.py
evaluate CommonGen common.py ${extra[@]+"${extra[@]}"}
evaluate SocialIQA social.py

"$here/python.sh" -m ragen.eval.compare "$output" --paper --csv "$output/table.csv" --figure "$output/table.svg" || exit 1
[ ${#missing[@]} -eq 0 ] || echo "no data, left out: ${missing[*]} (scripts/download_data.sh)" >&2
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
