#!/usr/bin/env bash
# Makes the wheel and the source distribution: `wheel.sh OUT LIBRARY [PLATFORM]`, which is what `make wheel` and `make wheel-release` call.
# LIBRARY goes into the wheel as it is, with libpassrl_tvmffi.so beside it (by CC), PLATFORM (this machine's otherwise) into its name. PYTHON has `build` and `setuptools`.
set -euo pipefail
out=$(realpath -m "${1:?a folder for what is made}")
library=$(realpath "${2:?the path of libpassrl.so}")
platform=${3:-}
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

# What a source distribution holds: the package, and beside it the crate, as one tree.
cp -rL bindings/python/passrl bindings/python/*.py bindings/python/pyproject.toml bindings/python/README.md LICENSE-MIT LICENSE-APACHE "$stage"
cp docs/third-party-licences.md "$stage/NOTICE-third-party.md"
mkdir "$stage/crate"
cp -r Cargo.toml Cargo.lock src kernels include benches "$stage/crate"
rm -rf "$stage/crate/benches/record"
# Members of the workspace, without which cargo reads no manifest.
mkdir "$stage/crate/tests"
cp -r tests/cudasim tests/testkit "$stage/crate/tests"
find "$stage" -name __pycache__ -prune -exec rm -rf {} +
printf 'graft crate\ninclude setup.py NOTICE-third-party.md\nglobal-exclude *.pyc\n' >"$stage/MANIFEST.in"

mkdir -p "$out"
# Not in $stage, which is what the source distribution holds.
tvm_ffi=$(mktemp -d)
trap 'rm -rf "$stage" "$tvm_ffi"' EXIT
bindings/tvm_ffi/build.sh "$tvm_ffi/libpassrl_tvmffi.so" libpassrl.so
PASSRL_TVM_FFI=$tvm_ffi/libpassrl_tvmffi.so PASSRL_LIBRARY=$library "$PYTHON" -m build --no-isolation --sdist --wheel --outdir "$out" ${platform:+"-C--build-option=--plat-name=$platform"} "$stage" >"$out/build.log" 2>&1 ||
    { tail -n 30 "$out/build.log" >&2; exit 1; }
rm "$out/build.log"
# The library says itself whether an image for each architecture is inside (nvcc was there when it was built) beside the source.
echo "CUDA kernels in it: source$(grep -aoE 'nvcc [0-9.]+ for sm_[0-9]+(, sm_[0-9]+)* and PTX' "$library" | head -1 | sed 's/^/, and the image of /')"
