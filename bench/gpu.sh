#!/bin/sh
# All that a GPU is to be asked, in eight minutes at most; nothing is installed.
#   bench/gpu.sh [OUT]          on the card
#   bench/gpu.sh --cpu [OUT]    the same with tiny models on the processor, to see that it works
# PYTHON names an interpreter that has Tincture; else that of .venv, or python3 with the sources beside this script.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
cpu=
[ "${1-}" != --cpu ] || { cpu=--cpu; shift; }
python=${PYTHON-}
[ -n "$python" ] || { [ -x "$here/.venv/bin/python" ] && python=$here/.venv/bin/python || python=python3; }
PYTHONPATH=$here/src${PYTHONPATH:+:$PYTHONPATH} exec "$python" "$here/bench/gpu.py" --out "${1-gpu-out}" $cpu
