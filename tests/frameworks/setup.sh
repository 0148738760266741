#!/usr/bin/env bash
# Installs the frameworks into a virtual environment that has torch (default .venv-frameworks). Once: until the list or this file changes.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-.venv-frameworks}
stamp=$venv/.plugins
[ -f "$stamp" ] && [ "$stamp" -nt tests/frameworks/requirements.txt ] && [ "$stamp" -nt tests/frameworks/setup.sh ] && exit 0
"$venv/bin/python" -c 'import torch' 2>/dev/null || { echo "frameworks: $venv has no torch; bring it with: tests/setup.sh frameworks" >&2; exit 1; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -q "$@"; }
# TRL trains here, so it comes with all that it needs. SkyRL's wheel asks for Python 3.12; what is called runs on 3.11.
pip trl==1.16.0 tqdm matplotlib
pip --no-deps --ignore-requires-python -r tests/frameworks/requirements.txt
touch "$stamp"
