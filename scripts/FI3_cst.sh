#!/usr/bin/env bash
# F+I3, one sub-task a step. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _27_FI3_cst "$@"
