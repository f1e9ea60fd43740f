#!/usr/bin/env bash
# Fetches the evaluation data from the Hugging Face hub, for machines with a network.
#   scripts/download_data.sh [FOLDER]
# FOLDER: default data/ in the project, where reason_test looks by itself (elsewhere: export GIFT_DATA=FOLDER).
# Every set is checked for its fields and written whole; one that is there already is left as it is. CommonGen's
# human references (allenai/commongen_lite_eval) need the hub's permission and a token (HF_TOKEN).
set -euo pipefail
case "${1:-}" in
    -h | --help) sed -n '2,6s/^# \?//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(realpath -m "${1:-$(dirname "$here")/data}")
exec "$here/python.sh" -m ragen.eval.download "$folder"
