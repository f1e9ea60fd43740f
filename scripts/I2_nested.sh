#!/usr/bin/env bash
# I2 nested: a matrix game, then tic-tac-toe, in one trajectory. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _24_I2_nested "$@"
