#!/usr/bin/env bash
# F+I2, one sub-task a step. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _26_FI2_cst "$@"
