"""Tic-tac-toe on the empty board: win, draw, loss, refused and unfinished, with 95% intervals.

python reason_test/tictactoe.py --model_path DIR --opponent random --games 1024 --output FILE.json
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from ragen.eval.cli import run  # noqa: E402
from ragen.eval.game_benchmarks import main_tictactoe  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(run(main_tictactoe))
