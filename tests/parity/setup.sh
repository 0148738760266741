#!/usr/bin/env bash
# Makes .venv-parity: torch, and the frameworks whose own functions `make parity` calls, from PyPI (about 5.5 GB; the CUDA wheel of torch is PyPI's only one for Linux).
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
venv=.venv-parity
stamp=$venv/.installed
[ -f $stamp ] && [ $stamp -nt tests/parity/requirements.txt ] && [ $stamp -nt tests/parity/setup.sh ] && exit 0
free=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
if [ ! -d $venv/lib ] && [ "$free" -lt 14 ]; then
    echo "parity: $free GB are free here; torch and its libraries want 14 while they are unpacked" >&2
    exit 1
fi
[ -x $venv/bin/python ] || "$PYTHON" -m venv $venv
pip() { $venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install -q torch==2.15.0
# SkyRL's wheel asks for Python 3.12; the functions called run on 3.11 (frameworks/skyrl.py).
pip install -q --no-deps --ignore-requires-python -r tests/parity/requirements.txt
# Versions of TRL that still have PPO and MiniLLM: read from their wheels, beside the installed one.
pip download -q --no-deps -d $venv/wheels trl==1.12.0
pip download -q --no-deps -d $venv/wheels trl==1.14.2
touch $stamp
