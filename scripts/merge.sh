#!/usr/bin/env bash
# Merges a checkpoint into a Hugging Face folder.
#   scripts/merge.sh RUN [TARGET] [option ...]       the last checkpoint of a run, into RUN/merged
#   scripts/merge.sh RUN/global_step_N [TARGET] ...  that one, into RUN/merged/global_step_N
# Options are those of `python -m verl.model_merger merge --help` (--overwrite, --dtype bfloat16, --lora adapter, ...).
# ROLE (actor) chooses the model: actor or critic.
set -euo pipefail
case "${1:-}" in
    "" | -h | --help) sed -n '2,6s/^# \?//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(realpath -m "$1")
shift
if [[ ${source##*/} == global_step_* ]]; then
    target=${source%/*}/merged/${source##*/}
else
    tracker=$source/latest_checkpointed_iteration.txt
    [ -f "$tracker" ] || { echo "merge.sh: $source has no checkpoint ($tracker is missing)" >&2; exit 1; }
    target=$source/merged
    source=$source/global_step_$(cat "$tracker")
fi
if [ $# -gt 0 ] && [[ $1 != --* ]]; then
    target=$(realpath -m "$1")
    shift
fi
exec "$here/python.sh" -m verl.model_merger merge --backend fsdp \
    --local_dir "$source/${ROLE:-actor}" --target_dir "$target" "$@"
