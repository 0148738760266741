#!/usr/bin/env bash
# The release wheel for aarch64 (`make wheel-release`), imported and run by Debian's own arm64 Python under qemu-user, with NumPy's wheel beside it: the outputs of
# every preset have the bits that the x86_64 wheel gives here (tests/wheel_bits.py). Debian's packages are unpacked into target/aarch64, nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
work=$PWD/target/aarch64
missing() {
    echo "aarch64-wheel: $1" >&2
    exit 1
}
command -v qemu-aarch64 >/dev/null || missing "qemu-aarch64 is missing: sudo apt-get install qemu-user"
command -v apt-get >/dev/null || missing "there is no apt-get to bring an arm64 Python"
there=$(compgen -G "target/wheel-release/*_aarch64.whl") || missing "there is no wheel for aarch64 in target/wheel-release: make wheel-release"
here=$(compgen -G "target/wheel-release/*_$(uname -m).whl") || missing "there is no wheel for this machine in target/wheel-release: make wheel-release"

root=$work/root
if [ ! -e "$work/.unpacked" ]; then
    rm -rf "$work" && mkdir -p "$root" "$work"/state/lists/partial "$work"/cache/archives/partial
    touch "$work/state/status"
    cat >"$work/apt.conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Dir::Cache::archives "archives/";
APT::Sandbox::User "$(id -un)";
Debug::NoLocking "1";
END
    export APT_CONFIG=$work/apt.conf
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends --download-only python3-minimal libpython3-stdlib libstdc++6 >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; exit 1; }
    for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    unset APT_CONFIG
    touch "$work/.unpacked"
fi
program=$(readlink -f "$root/usr/bin/python3")
version=$(basename "$program" | sed 's/^python//')

rm -rf "$work/there" "$work/here" "$work/wheels"
"$PYTHON" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version "$version" --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --dest "$work/wheels" numpy
for wheel in "$work"/wheels/*.whl "$there"; do "$PYTHON" -m zipfile -e "$wheel" "$work/there"; done
"$PYTHON" -m venv "$work/here"
"$work/here/bin/pip" install -q --disable-pip-version-check "$here"

ours=$("$work/here/bin/python" -I tests/wheel_bits.py)
theirs=$(PYTHONPATH=$work/there PYTHONDONTWRITEBYTECODE=1 qemu-aarch64 -L "$root" "$program" tests/wheel_bits.py)
printf '%s\n%s\n' "$ours" "$theirs"
[ "${ours#* }" = "${theirs#* }" ] || missing "the wheels give different bits"
