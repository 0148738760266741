#!/usr/bin/env bash
# Release wheels: manylinux_2_17 (glibc 2.17 of 2012 and later) for x86_64 and aarch64, linked by zig, looked at by auditwheel; and the source
# distribution, built and installed once. `release.sh OUT`, which is what `make wheel-release` calls.
# Tools come into .venv-wheel; an architecture whose Rust target cannot be had is named and left out.
set -euo pipefail
out=$(realpath -m "${1:?a folder for what is made}")
cd "$(dirname "$0")/../.."
venv=.venv-wheel
glibc=2.17
if [ ! -x $venv/bin/cargo-zigbuild ] || [ ! -x $venv/bin/auditwheel ]; then
    "${PYTHON:-python3}" -m venv $venv
    $venv/bin/pip install -q --disable-pip-version-check 'build>=1' 'setuptools>=77' wheel auditwheel ziglang cargo-zigbuild twine
fi
export PATH=$PWD/$venv/bin:$PATH
rm -rf "$out"
mkdir -p "$out"

for architecture in x86_64 aarch64; do
    target=$architecture-unknown-linux-gnu
    if ! rustup target list --installed 2>/dev/null | grep -qx "$target" && ! rustup target add "$target"; then
        echo "wheel-release: LEFT OUT: $architecture: rustup cannot bring the target $target" >&2
        continue
    fi
    CARGO_PROFILE_RELEASE_STRIP=debuginfo cargo zigbuild --release --locked --lib --target "$target.$glibc"
    CC="python -m ziglang cc -target $architecture-linux-gnu.$glibc" PYTHON=python bindings/python/wheel.sh "$out" "target/$target/release/libpassrl.so" "manylinux_${glibc/./_}_$architecture"
    wheel=$(echo "$out"/*"_$architecture.whl")
    said=$(auditwheel show "$wheel" | tr '\n' ' ')
    grep -q "consistent with the following platform tag: \"manylinux_${glibc/./_}_$architecture\"" <<<"$said" ||
        { echo "wheel-release: auditwheel says of $wheel: $said" >&2; exit 1; }
    echo "auditwheel: $(basename "$wheel") is consistent with manylinux_${glibc/./_}_$architecture"
done
twine check --strict "$out"/*

# This machine's wheel and the source distribution, each in an environment with nothing else.
for what in "$out"/*"_$(uname -m).whl" "$out"/*.tar.gz; do
    empty=$(mktemp -d)
    python -m venv "$empty"
    "$empty/bin/pip" install -q --disable-pip-version-check "$what"
    (cd / && "$empty/bin/python" -I -c 'import passrl; print("imported", passrl.__version__, passrl.library_path, passrl.shape(outcome=[1.0, 0], lengths=[1, 1], group_size=2, kind="none", chunk="none").advantages)')
    rm -rf "$empty"
done
ls -l "$out"
