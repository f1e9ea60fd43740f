"""Who's the spy, the model in one of four seats.

python reason_test/undercover.py --model_path DIR --output results/
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from ragen.eval.cli import run  # noqa: E402
from ragen.eval.game_benchmarks import main_undercover  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(run(main_undercover))
