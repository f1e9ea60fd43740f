#!/usr/bin/env bash
# F+I1 mixed: mathematics and matrix games in one batch. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _14_FI1_mixed "$@"
