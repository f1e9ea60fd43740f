#!/usr/bin/env bash
# Mathematics alone. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _10_math "$@"
