#!/usr/bin/env bash
# Makes a starter model of the laptop runs anew (minutes of CPU; the results are shipped in assets).
#   scripts/make_starter.sh [--recipe games] [option of scripts.starter ...]     e.g. --out DIR --shorten 0.1
# Without --recipe assets/starter (tic-tac-toe), with --recipe games assets/starter-games.
exec "$(dirname "${BASH_SOURCE[0]}")/python.sh" -m scripts.starter "$@"
