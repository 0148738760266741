#!/usr/bin/env bash
# Builds libpassrl_tvmffi.so: `build.sh OUT [NAME]`, which `make tvm-ffi`, `make install` and the wheels call. It finds libpassrl by NAME, in its own folder: libpassrl.so.0,
# as it is installed, unless told (the wheel has libpassrl.so). It is linked to a stub of that name with the header's functions, so that libpassrl itself is not
# needed here, of this processor or another (CC="python -m ziglang cc -target ...").
set -euo pipefail
out=$(realpath -m "${1:?the path of libpassrl_tvmffi.so}")
name=${2:-libpassrl.so.0}
cd "$(dirname "$0")/../.."
read -ra CC <<<"${CC:-cc}"
stub=$(mktemp -d)
trap 'rm -rf "$stub"' EXIT
grep -oE '\bpassrl_[a-z0-9_]+\(' include/passrl.h | sort -u | sed 's/(/(void) {}/; s/^/void /' >"$stub/stub.c"
"${CC[@]}" -shared -fPIC -Wl,-soname,"$name" -o "$stub/$name" "$stub/stub.c"
mkdir -p "$(dirname "$out")"
"${CC[@]}" -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror -shared -fPIC -fvisibility=hidden -Iinclude -Wl,-soname,libpassrl_tvmffi.so \
    -o "$out" bindings/tvm_ffi/passrl_tvmffi.c "$stub/$name" -ldl '-Wl,-rpath,$ORIGIN'
