#!/usr/bin/env bash
# Runs the project's Python in the project's folder: $PYTHON, else .venv, else what is on the path.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
exec "$PYTHON" "$@"
