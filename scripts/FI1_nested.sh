#!/usr/bin/env bash
# F+I1 nested: mathematics, then a matrix game, in one trajectory. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _15_FI1_nested "$@"
