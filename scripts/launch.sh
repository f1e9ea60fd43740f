#!/usr/bin/env bash
# The launcher behind every experiment script: CONFIG [--laptop] [--plan] [key=value ...]
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: [SETTING=value ...] scripts/NAME.sh [--laptop] [--plan] [key=value ...]

  --laptop    the same experiment with a small shipped model, scripted opponents and CPU ranks
  --plan      print what would run and the memory it takes, start nothing
  key=value   any key of the configuration (Hydra), e.g. algorithm.adv_estimator=rloo

settings, all optional:
  MODEL_PATH  a Hugging Face folder or hub name    (model_path)
  GPUS        ranks of this machine                (trainer.n_gpus_per_node)
  STEPS       training steps                       (trainer.total_training_steps)
  OUT         folder of the run                    (trainer.default_local_dir)
  PYTHON      interpreter, default .venv/bin/python
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case "${1:-}" in
    "" | -h | --help) usage; exit 0 ;;
esac
config=$1
shift

overrides=()
extra=()
for argument in "$@"; do
    case "$argument" in
        --laptop) overrides+=("+form=laptop") ;;
        --plan) overrides+=("trainer.plan_only=true") ;;
        -h | --help) usage; exit 0 ;;
        *=*) extra+=("$argument") ;;
        *) echo "launch.sh: $argument is neither an option nor key=value (see --help)" >&2; exit 2 ;;
    esac
done

# the launcher changes folder, so paths given relative to the caller's are made whole first
whole() { case "$1" in /* | ~*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
if [ -n "${MODEL_PATH:-}" ]; then
    [ -d "$MODEL_PATH" ] && MODEL_PATH=$(whole "$MODEL_PATH")
    overrides+=("model_path=$MODEL_PATH")
fi
[ -n "${GPUS:-}" ] && overrides+=("trainer.n_gpus_per_node=$GPUS")
[ -n "${STEPS:-}" ] && overrides+=("trainer.total_training_steps=$STEPS")
[ -n "${OUT:-}" ] && overrides+=("trainer.default_local_dir=$(whole "$OUT")")

exec "$here/python.sh" train.py --config-name "$config" "${overrides[@]}" "${extra[@]}"
