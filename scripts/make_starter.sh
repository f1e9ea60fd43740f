#!/usr/bin/env bash
# Makes the starter model of the laptop run anew (minutes to hours of CPU; the result is shipped in assets/starter).
#   scripts/make_starter.sh [option of scripts.starter ...]     e.g. --out DIR --steps 2000; --help lists them
exec "$(dirname "${BASH_SOURCE[0]}")/python.sh" -m scripts.starter "$@"
