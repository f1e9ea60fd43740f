"""The launchers: which command each one runs, and what the longer ones do when things go wrong."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragen.trainer.config import CONFIG_DIR, compose

ROOT = CONFIG_DIR.parent
SCRIPTS = ROOT / "scripts"

EXPERIMENTS = {
    "math": "_10_math", "nash": "_12_nash", "tictactoe": "_8_tictactoe", "undercover": "_17_undercover",
    "tictactoe_selfplay": "_9_tictactoe_selfplay",
    "I2_mixed": "_13_nash_tictactoe", "I2_nested": "_24_I2_nested", "I2_cst": "_28_I2_cst",
    "FI1_mixed": "_14_FI1_mixed", "FI1_nested": "_15_FI1_nested", "FI1_cst": "_25_FI1_cst",
    "FI2_mixed": "_19_FI2_mix", "FI2_nested": "_21_FI2_nested", "FI2_cst": "_26_FI2_cst",
    "FI3_mixed": "_20_FI3_mix", "FI3_cst": "_27_FI3_cst",
}  # fmt: skip


def script(name, *args, cwd=None, **env):
    command = [str(SCRIPTS / f"{name}.sh"), *map(str, args)]
    clean = {k: v for k, v in os.environ.items() if k not in ("MODEL_PATH", "GPUS", "STEPS", "OUT", "PORT", "VLLM")}
    return subprocess.run(command, cwd=cwd, env={**clean, **{k: str(v) for k, v in env.items()}}, capture_output=True, text=True, timeout=60)


def told(name, *args, **kwargs):
    """The arguments that a launcher hands to Python."""
    done = script(name, *args, PYTHON="echo", **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.name)
def test_every_script_parses_runs_anywhere_and_names_no_machine(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK)
    text = path.read_text()
    assert not [place for place in ("/home/", "/root/", "/work/", "/data/", "/mnt/") if place in text]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_has_a_one_line_launcher(name):
    assert told(name) == ["train.py", "--config-name", EXPERIMENTS[name]]
    code = [line for line in (SCRIPTS / f"{name}.sh").read_text().splitlines() if line and not line.startswith("#")]
    assert len(code) == 1


def test_settings_and_overrides_reach_the_configuration(tmp_path):
    (tmp_path / "model").mkdir()
    words = told("FI1_nested", "--laptop", "algorithm.adv_estimator=rloo", cwd=tmp_path, MODEL_PATH="model", GPUS=3, STEPS=7, OUT="run")
    assert words[:3] == ["train.py", "--config-name", "_15_FI1_nested"]
    config = compose(words[2], words[3:])
    assert config.trainer.n_gpus_per_node == 3 and config.trainer.total_training_steps == 7
    # relative to where the user stands, not to the project
    assert config.model_path == str(tmp_path / "model") and config.trainer.default_local_dir == str(tmp_path / "run")
    assert config.algorithm.adv_estimator == "rloo" and config.trainer.device == "auto"
    assert config.actor_rollout_ref.rollout.dtype == "float32"


def test_hub_names_are_left_as_they_are():
    assert "model_path=Qwen/Qwen2.5-7B" in told("math", MODEL_PATH="Qwen/Qwen2.5-7B")


def test_plan_and_help_and_wrong_words():
    assert "trainer.plan_only=true" in told("math", "--plan")
    assert "MODEL_PATH" in script("math", "--help").stdout
    done = script("math", "--lap")
    assert done.returncode == 2 and "--lap" in done.stderr


# -- F+I3 nested: warm-up, merge, nested ------------------------------------------------------

STAND_IN = """#!/usr/bin/env bash
# stands in for python: notes the call and leaves behind what the real one would
echo "$*" >>"$CALLS"
for word in "$@"; do
    case "$word" in trainer.default_local_dir=*) out=${word#*=} ;; esac
done
case "$1" in
    train.py) mkdir -p "$out"; echo 20 >"$out/latest_checkpointed_iteration.txt" ;;
    -m) [ -n "${FAIL_MERGE:-}" ] && exit 1; mkdir -p "${!#}"; echo '{}' >"${!#}/config.json" ;;
esac
"""


@pytest.fixture
def stand_in(tmp_path):
    path = tmp_path / "python"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    return {"PYTHON": path, "CALLS": calls, "OUT": tmp_path / "out"}


def test_nested_fi3_warms_up_merges_and_starts_from_the_merged_model(stand_in):
    done = script("FI3_nested", "--laptop", "seed.train=4", STEPS=30, **stand_in)
    assert done.returncode == 0, done.stderr
    warmup, merge, nested = stand_in["CALLS"].read_text().splitlines()
    assert "_20_FI3_mix" in warmup and "trainer.total_training_steps=20" in warmup and "seed.train=4" in warmup
    assert f"--local_dir {stand_in['OUT']}/warmup/global_step_20/actor" in merge
    assert "_23_FI3_nested" in nested and "trainer.total_training_steps=30" in nested and "+form=laptop" in nested
    assert f"model_path={stand_in['OUT']}/warmup/merged" in nested and "resume" not in nested

    script("FI3_nested", STEPS=30, **stand_in)  # run again: the warm-up is there
    assert len(stand_in["CALLS"].read_text().splitlines()) == 4


def test_a_merge_that_fails_stops_the_run_and_is_done_again(stand_in):
    done = script("FI3_nested", FAIL_MERGE=1, **stand_in)
    assert done.returncode != 0 and "_23_FI3_nested" not in stand_in["CALLS"].read_text()
    assert not (stand_in["OUT"] / "warmup" / "merged").exists()
    assert script("FI3_nested", **stand_in).returncode == 0


def test_nested_fi3_without_warm_up_takes_the_given_model(stand_in):
    script("FI3_nested", WARMUP_STEPS=0, MODEL_PATH="Qwen/Qwen2.5-7B", **stand_in)
    (only,) = stand_in["CALLS"].read_text().splitlines()
    assert "_23_FI3_nested" in only and "model_path=Qwen/Qwen2.5-7B" in only


# -- the opponent's server --------------------------------------------------------------------

SERVER = """#!{python}
import http.server, json, sys, time
arguments = sys.argv[1:]
port = int(arguments[arguments.index("--port") + 1])
name = arguments[arguments.index("--served-model-name") + 1]
if "--die" in arguments:
    sys.exit("out of memory, says the server")
time.sleep(300 if "--never" in arguments else 1)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({{"data": [{{"id": name}}]}}).encode())

http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def opponent(tmp_path):
    """Settings of serve_opponent.sh over a small server that speaks what it asks for; ended afterwards."""
    path = tmp_path / "vllm"
    path.write_text(SERVER.format(python=sys.executable))
    path.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"VLLM": path, "PORT": port, "OUT": tmp_path / "opponent", "PYTHON": sys.executable}
    yield settings
    pid_file = tmp_path / "opponent" / f"{port}.pid"
    if pid_file.exists():
        os.killpg(int(pid_file.read_text()), signal.SIGKILL)


def _listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_opponent_is_started_waited_for_reused_and_stopped(opponent):
    done = script("serve_opponent", **opponent)
    assert done.returncode == 0 and f"answers on port {opponent['PORT']}" in done.stdout, done.stderr
    assert "already answers" in script("serve_opponent", **opponent).stdout
    taken = script("serve_opponent", OPPONENT_NAME="another", **opponent)
    assert taken.returncode == 1 and "is taken" in taken.stderr
    script("serve_opponent", "--stop", **opponent)
    deadline = time.time() + 10
    while _listening(opponent["PORT"]) and time.time() < deadline:
        time.sleep(0.1)
    assert not _listening(opponent["PORT"])


def test_a_server_that_dies_is_reported_with_its_last_words(opponent):
    done = script("serve_opponent", "--die", **opponent)
    assert done.returncode == 1 and "out of memory, says the server" in done.stderr


def test_a_server_that_never_answers_is_given_up_and_ended(opponent):
    done = script("serve_opponent", "--never", OPPONENT_TIMEOUT=2, **opponent)
    assert done.returncode == 1 and "no answer within 2 s" in done.stderr
    assert not (Path(opponent["OUT"]) / f"{opponent['PORT']}.pid").exists()
