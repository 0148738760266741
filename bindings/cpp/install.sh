#!/usr/bin/env bash
# Installs library, the library for apache-tvm-ffi (where there is a C compiler), headers, CMake package, pkg-config file and licences: `install.sh LIBRARY`, which is what `make install` calls.
# PREFIX (/usr/local) is where it will be used, DESTDIR (empty) is put before it while packaging, LIBDIR (lib) is below PREFIX.
# Nothing installed holds PREFIX: the tree may be moved.
set -euo pipefail
library=$(realpath "${1:?the path of libpassrl.so}")
cd "$(dirname "$0")/../.."
PREFIX=${PREFIX:-/usr/local}
LIBDIR=${LIBDIR:-lib}
case $PREFIX in /*) ;; *) echo "install: PREFIX is $PREFIX; give an absolute path" >&2; exit 2 ;; esac
case $LIBDIR in /*) echo "install: LIBDIR is $LIBDIR; give it below PREFIX, as lib or lib/x86_64-linux-gnu" >&2; exit 2 ;; esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
IFS=. read -r major minor _ <<<"$version"
soversion=$(readelf -d "$library" | sed -n 's/.*SONAME.*\[libpassrl\.so\.\(.*\)\]/\1/p')
[ -n "$soversion" ] || { echo "install: $library has no SONAME libpassrl.so.N; build it with: make build" >&2; exit 1; }
root=${DESTDIR:-}$PREFIX
lib=$root/$LIBDIR

# fill NAME FOLDER: a template of package/ into the installed folder.
fill() {
    sed -e "s|@VERSION@|$version|g" -e "s|@VERSION_MAJOR@|$major|g" -e "s|@VERSION_MINOR@|$minor|g" -e "s|@SOVERSION@|$soversion|g" \
        -e "s|@LIBDIR@|$LIBDIR|g" -e "s|@CMAKE_TO_PREFIX@|$(realpath -ms --relative-to="/$LIBDIR/cmake/passrl" /)|g" \
        -e "s|@PC_TO_PREFIX@|$(realpath -ms --relative-to="/$LIBDIR/pkgconfig" /)|g" "bindings/cpp/package/$1.in" >"$2/$1"
    chmod 644 "$2/$1"
}

install -d "$root/include" "$lib/cmake/passrl" "$lib/pkgconfig" "$root/share/doc/passrl"
install -m 644 include/passrl.h include/passrl.hpp include/passrl_mpi.h "$root/include"
install -m 755 "$library" "$lib/libpassrl.so.$version"
ln -sf "libpassrl.so.$version" "$lib/libpassrl.so.$soversion"
ln -sf "libpassrl.so.$soversion" "$lib/libpassrl.so"
if command -v "${CC:-cc}" >/dev/null; then
    bindings/tvm_ffi/build.sh "$lib/libpassrl_tvmffi.so" "libpassrl.so.$soversion"
    chmod 755 "$lib/libpassrl_tvmffi.so"
else
    echo "install: libpassrl_tvmffi.so is LEFT OUT: there is no C compiler (${CC:-cc})" >&2
fi
fill passrl-config.cmake "$lib/cmake/passrl"
fill passrl-config-version.cmake "$lib/cmake/passrl"
fill passrl.pc "$lib/pkgconfig"
install -m 644 LICENSE-MIT LICENSE-APACHE docs/third-party-licences.md "$root/share/doc/passrl"
echo "installed passrl $version in $root"
