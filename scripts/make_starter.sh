#!/usr/bin/env bash
# Makes a starter model of the laptop runs anew (minutes of CPU; the results are shipped in assets).
#   scripts/make_starter.sh [tictactoe | games] [option of scripts.starter ...]     e.g. --out DIR --shorten 0.1
# tictactoe makes assets/starter, games makes assets/starter-games.
exec "$(dirname "${BASH_SOURCE[0]}")/python.sh" -m scripts.starter "$@"
