#!/usr/bin/env bash
# Merges every whole checkpoint of a run and then deletes it, except the last, from which the run can go on.
#   scripts/merge_dl.sh RUN [TARGET_ROOT] [option ...]    into TARGET_ROOT/global_step_N (RUN/merged)
# Options are those of `python -m verl.model_merger monitor --help`.
case "${1:-}" in
    "" | -h | --help) sed -n '2,4s/^# \?//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
exec "$(dirname "${BASH_SOURCE[0]}")/monitor.sh" "$@" --once --remove_old
