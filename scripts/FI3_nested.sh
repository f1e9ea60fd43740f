#!/usr/bin/env bash
# F+I3 nested: all four tasks in one trajectory, after a short mixed warm-up (the paper's 1.5B run needs it: a weak
# model seldom ends a nest with any success, and groups without differences teach nothing).
# WARMUP_STEPS (20; 0: none). Other settings and options: scripts/launch.sh --help
#
# The warm-up's checkpoint is merged and the nested run starts from it as from any model. It is not resumed: a resumed
# run would carry the warm-up's step count, optimizer moments and schedule into another task.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
warmup=${WARMUP_STEPS:-20}
out=${here%/*}/outputs/_23_FI3_nested
case " $* " in *" --laptop "*) out=$out-laptop ;; esac
out=${OUT:-$out}
case "$out" in /*) ;; *) out=$PWD/$out ;; esac

case " $* " in
    *" --help "* | *" -h "*) exec "$here/launch.sh" --help ;;
    *" --plan "*)
        [ "$warmup" -eq 0 ] || STEPS=$warmup OUT=$out/warmup "$here/launch.sh" _20_FI3_mix "$@"
        OUT=$out exec "$here/launch.sh" _23_FI3_nested "$@"
        ;;
esac

if [ "$warmup" -gt 0 ]; then
    merged=$out/warmup/merged
    if [ ! -f "$merged/config.json" ]; then
        STEPS=$warmup OUT=$out/warmup "$here/launch.sh" _20_FI3_mix "$@" trainer.save_freq="$warmup"
        step=$(cat "$out/warmup/latest_checkpointed_iteration.txt")
        rm -rf "$merged.partial"
        "$here/python.sh" -m verl.model_merger merge --backend fsdp \
            --local_dir "$out/warmup/global_step_$step/actor" --target_dir "$merged.partial"
        mv "$merged.partial" "$merged" # whole or absent: a merge that was cut off is done again
    fi
    export MODEL_PATH=$merged
fi
OUT=$out exec "$here/launch.sh" _23_FI3_nested "$@"
