#!/usr/bin/env bash
# Tic-tac-toe against itself. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _9_tictactoe_selfplay "$@"
