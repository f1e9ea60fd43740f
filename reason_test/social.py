"""SocialIQA.

python reason_test/social.py --model_path DIR --output results/
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from ragen.eval.cli import run  # noqa: E402
from ragen.eval.question_benchmarks import main_social  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(run(main_social))
