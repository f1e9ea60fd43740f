#!/usr/bin/env bash
# F+I3 mixed: all four in one batch. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _20_FI3_mix "$@"
