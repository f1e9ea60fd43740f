#!/usr/bin/env bash
# I2 mixed: matrix games and tic-tac-toe in one batch. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _13_nash_tictactoe "$@"
