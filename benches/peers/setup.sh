#!/usr/bin/env bash
# Makes .venv-peers: torch, and the packages whose own functions `make bench-peers` runs beside ours, from PyPI (about 5.5 GB; the CUDA wheel of torch is PyPI's only one for Linux).
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
venv=.venv-peers
stamp=$venv/.installed
[ -f $stamp ] && [ $stamp -nt benches/peers/requirements.txt ] && [ $stamp -nt benches/peers/setup.sh ] && exit 0
free=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
if [ ! -d $venv/lib ] && [ "$free" -lt 14 ]; then
    echo "bench-peers: $free GB are free here; torch and its libraries want 14 while they are unpacked" >&2
    exit 1
fi
[ -x $venv/bin/python ] || "$PYTHON" -m venv $venv
pip() { $venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip install -q torch==2.15.0 matplotlib==3.11.2
pip install -q --no-deps -r benches/peers/requirements.txt
touch $stamp
