#!/usr/bin/env bash
# I2, one sub-task a step. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _28_I2_cst "$@"
