#!/usr/bin/env bash
# Starts the opponent model that the GPU forms play against and waits until it answers.
#   scripts/serve_opponent.sh [option of vllm serve ...]     start
#   scripts/serve_opponent.sh --stop                         stop it
# Settings: OPPONENT_MODEL (Qwen/Qwen3-14B), OPPONENT_NAME (Qwen3-14B: the model_name of player_info), PORT (1414),
# OPPONENT_GPUS (CUDA_VISIBLE_DEVICES of the server; keep it off the trainer's), OPPONENT_TIMEOUT (900 s),
# VLLM (the vllm command), OUT (outputs/opponent: log and process id).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
model=${OPPONENT_MODEL:-Qwen/Qwen3-14B}
name=${OPPONENT_NAME:-Qwen3-14B}
port=${PORT:-1414}
limit=${OPPONENT_TIMEOUT:-900}
folder=${OUT:-$root/outputs/opponent}
pid_file=$folder/$port.pid
log=$folder/$port.log

# 0: our model answers; 1: nobody does; 3: somebody else does
asked() {
    "$root/scripts/python.sh" - "$port" "$name" <<'PY'
import json, sys, urllib.error, urllib.request

port, name = sys.argv[1:]
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
        models = [m["id"] for m in json.load(answer)["data"]]
except urllib.error.HTTPError:
    sys.exit(3)
except OSError:
    sys.exit(1)
except (ValueError, KeyError, TypeError):
    sys.exit(3)
sys.exit(0 if name in models else 3)
PY
}

stop() {
    [ -f "$pid_file" ] || return 0
    kill -- "-$(cat "$pid_file")" 2>/dev/null || true # its whole session: the engine is a child of the server
    rm -f "$pid_file"
}

if [ "${1:-}" = --stop ]; then
    stop
    exit 0
fi

state=0
asked || state=$?
case $state in
    0) echo "$name already answers on port $port"; exit 0 ;;
    3) echo "serve_opponent.sh: port $port is taken by something that is not $name: set PORT (and the port of player_info)" >&2; exit 1 ;;
esac

vllm=${VLLM:-}
if [ -z "$vllm" ]; then
    vllm=vllm
    [ -x "$root/.venv/bin/vllm" ] && vllm=$root/.venv/bin/vllm
fi
command -v "$vllm" >/dev/null || { echo "serve_opponent.sh: no vllm command: run scripts/install.sh, or set VLLM" >&2; exit 1; }

mkdir -p "$folder"
[ -n "${OPPONENT_GPUS:-}" ] && export CUDA_VISIBLE_DEVICES=$OPPONENT_GPUS
# in a session of its own, so that the server outlives this terminal
setsid "$vllm" serve "$model" --served-model-name "$name" --host 127.0.0.1 --port "$port" "$@" >"$log" 2>&1 &
pid=$!
echo $pid >"$pid_file"
echo "starting $model as $name on port $port (log: $log)"
for ((waited = 0; waited < limit; waited += 2)); do
    state=0
    asked || state=$?
    if [ $state -eq 0 ]; then
        echo "$name answers on port $port (stop it with scripts/serve_opponent.sh --stop)"
        exit 0
    fi
    if ! kill -0 $pid 2>/dev/null; then
        echo "serve_opponent.sh: the server ended before it answered; the last lines of $log:" >&2
        tail -n 20 "$log" >&2
        rm -f "$pid_file"
        exit 1
    fi
    sleep 2
done
stop
echo "serve_opponent.sh: no answer within $limit s (OPPONENT_TIMEOUT); the last lines of $log:" >&2
tail -n 20 "$log" >&2
exit 1
