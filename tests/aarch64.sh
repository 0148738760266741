#!/usr/bin/env bash
# The output hashes of the case table (tests/cases/hashes.txt) on aarch64, under qemu-user: built by zig, run by Debian's qemu. Not part of `make test`: compiling
# the tests' tools for another processor takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-wheel
target=aarch64-unknown-linux-gnu
missing() {
    echo "aarch64: $1" >&2
    exit 1
}
command -v qemu-aarch64 >/dev/null || missing "qemu-aarch64 is missing: sudo apt-get install qemu-user"
[ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ] || missing "its C library is missing: sudo apt-get install libc6-arm64-cross"
rustup target list --installed | grep -qx $target || rustup target add $target || missing "rustup cannot bring the target $target"
[ -x $venv/bin/cargo-zigbuild ] || { "${PYTHON:-python3}" -m venv $venv && $venv/bin/pip install -q --disable-pip-version-check ziglang cargo-zigbuild; }
PATH=$PWD/$venv/bin:$PATH cargo zigbuild --locked --test accuracy --target $target
program=$(ls -t target/$target/debug/deps/accuracy-* | grep -v '\.d$' | head -1)
qemu-aarch64 -L /usr/aarch64-linux-gnu "$program" --exact bits_are_those_of_this_numerics_version
