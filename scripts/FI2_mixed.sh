#!/usr/bin/env bash
# F+I2 mixed: mathematics, matrix games and tic-tac-toe in one batch. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _19_FI2_mix "$@"
