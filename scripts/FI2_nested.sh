#!/usr/bin/env bash
# F+I2 nested: the three in one trajectory. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _21_FI2_nested "$@"
