#!/usr/bin/env bash
# Matrix games alone. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _12_nash "$@"
