#!/usr/bin/env bash
# Who's the spy alone. Settings and options: scripts/launch.sh --help
exec "$(dirname "${BASH_SOURCE[0]}")/launch.sh" _17_undercover "$@"
