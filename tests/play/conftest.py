"""What the tests of the playing side have, for games against a person."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "ragen"))
