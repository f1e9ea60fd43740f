#!/usr/bin/env bash
# F+I1, one sub-task a step. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _25_FI1_cst "$@"
