#!/usr/bin/env bash
# The plug-ins' tests in a virtual environment that setup.sh filled (default .venv-frameworks), a process a file: what one framework's import changes
# is not there for the next.
set -uo pipefail
cd "$(dirname "$0")/../.."
venv=${1:-.venv-frameworks}
failed=()
for file in tests/frameworks/test_*.py; do
    echo "== $file"
    # OpenMP's threads spin on a busy machine: one is faster.
    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$venv/bin/python" -W ignore -m pytest -q -rsfE -p no:cacheprovider "$file" || failed+=("$file")
done
for file in ${failed[@]+"${failed[@]}"}; do echo "FAILED $file"; done
[ ${#failed[@]} = 0 ]
