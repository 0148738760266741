#!/usr/bin/env bash
# Installs the frameworks into a virtual environment that has torch (default .venv-frameworks) and runs the plug-ins' tests there, a process a file:
# what one framework's import changes is not there for the next.
set -uo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-.venv-frameworks}
stamp=$venv/.plugins
if [ ! -f "$stamp" ] || [ tests/frameworks/requirements.txt -nt "$stamp" ] || [ tests/frameworks/run.sh -nt "$stamp" ]; then
    "$venv/bin/python" -c 'import torch' || { echo "frameworks: $venv has no torch; make frameworks makes it" >&2; exit 1; }
    pip() { "$venv/bin/python" -m pip --disable-pip-version-check install -q "$@"; }
    # TRL trains here, so it comes with all that it needs; SkyRL's wheel asks for Python 3.12, its functions run on 3.10.
    pip trl==1.16.0 tqdm matplotlib && pip --no-deps --ignore-requires-python -r tests/frameworks/requirements.txt && touch "$stamp" || exit 1
fi
failed=0
for file in tests/frameworks/test_*.py; do
    echo "== $file"
    # OpenMP's threads spin on a busy machine: one is faster.
    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$venv/bin/python" -W ignore -m pytest -q -rsfE -p no:cacheprovider "$file" || failed=1
done
exit $failed
