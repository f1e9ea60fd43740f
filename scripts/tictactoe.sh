#!/usr/bin/env bash
# Tic-tac-toe alone, against the opponent of serve_opponent.sh. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _8_tictactoe "$@"
