#!/usr/bin/env bash
# Watches a run and merges each checkpoint once it is whole (Ctrl-C ends it).
#   scripts/monitor.sh RUN [TARGET_ROOT] [option ...]     into TARGET_ROOT/global_step_N (RUN/merged)
# Options are those of `python -m verl.model_merger monitor --help`: --remove_old deletes a checkpoint that is merged
# (never the last), --interval SECONDS, --once, --dtype bfloat16, --lora adapter, ...
set -euo pipefail
case "${1:-}" in
    "" | -h | --help) sed -n '2,5s/^# \?//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run=$(realpath -m "$1")
shift
target=$run/merged
if [ $# -gt 0 ] && [[ $1 != --* ]]; then
    target=$(realpath -m "$1")
    shift
fi
exec "$here/python.sh" -m verl.model_merger monitor --watch_dir "$run" --target_root "$target" "$@"
