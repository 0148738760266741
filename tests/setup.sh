#!/usr/bin/env bash
# Brings what the tests and the package need: `setup.sh system` the system's packages, `setup.sh python` the .venv, `setup.sh frameworks` a .venv-frameworks
# with torch and ray, `setup.sh nccl` a .venv-nccl with NCCL's wheel (460 MB), `setup.sh cuda` a .venv-cuda with NVRTC (`all`: and nvcc).
# A package is installed only where it is missing and apt-get can; else one sentence names it with the command that brings it.
# Exit status 1: something that nothing works without is missing.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
updated=

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# install PACKAGE WHY: 0 where it is there now.
install() {
    if can_install; then
        echo "setup: installing $1 ($2)"
        [ -n "$updated" ] || { as_root apt-get update -qq >/dev/null 2>&1; updated=1; }
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null 2>&1 && return 0
    fi
    echo "setup: $1 is missing ($2); bring it with: sudo apt-get install $1"
    return 1
}

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    # The library alone reads no header that asks for the compiler's own.
    compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null || compgen -G '/usr/lib*/clang/*/include/stddef.h' >/dev/null || return 1
    ldconfig -p 2>/dev/null | grep -Eq 'libclang(-[0-9]+)?\.so' && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib/*/libclang-[0-9]*.so*' >/dev/null
}

has_chromium() {
    command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome
} >/dev/null

system() {
    local broken=0
    command -v "${CARGO:-cargo}" >/dev/null || { echo "setup: cargo is missing; bring it with: curl https://sh.rustup.rs -sSf | sh"; broken=1; }
    command -v cc >/dev/null || install gcc "the linker of Rust and the C tests" || broken=1
    command -v c++ >/dev/null || install g++ "the C++ tests" || broken=1
    command -v g++ >/dev/null || install g++ "the simulated CUDA driver of the tests" || true
    command -v cmake >/dev/null || install cmake "an installed tree is used by it in the tests" || true
    command -v doxygen >/dev/null || install doxygen "the reference of C and C++ is made by it" || true
    command -v pkg-config >/dev/null || install pkgconf "likewise" || true
    has_libclang || install libclang-dev "bindgen reads the committed header in the ABI tests" || broken=1
    command -v valgrind >/dev/null || install valgrind "the C test programs are run under it" || true
    command -v mpicc >/dev/null || install libopenmpi-dev "the MPI adapter's test" || true
    command -v mpirun >/dev/null || install openmpi-bin "the MPI adapter's test" || true
    has_chromium || install chromium-headless-shell "the HTML page is opened in it" || true
    [ -e /usr/share/i18n/locales/de_DE ] || install locales "a locale with a decimal comma, for one test" || true
    return $broken
}

# environment FOLDER PACKAGE...: a virtual environment with these.
environment() {
    local venv=$1
    shift
    command -v "$PYTHON" >/dev/null || install python3 "the Python package" || return 1
    if [ ! -x "$venv/bin/pip" ]; then
        "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || install python3-venv "python3 -m venv" || return 1
        "$PYTHON" -m venv "$venv" || { echo "setup: python3 -m venv failed; bring it with: sudo apt-get install python3-venv"; return 1; }
    fi
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" && return 0
    echo "setup: pip could not install $*; with a network: $venv/bin/pip install $*"
    return 1
}

python() {
    local extras=cli,dev
    # What drives the browser is of use only beside one.
    has_chromium && extras=cli,dev,page
    environment .venv -e "bindings/python[$extras]"
}

# NVRTC for the tests; with `all` nvcc too, which kernels/build.rs then finds: the library is built with an image for every architecture.
cuda() {
    if [ "${1:-}" = all ]; then
        environment .venv-cuda -r tests/cuda/requirements.txt
    else
        environment .venv-cuda "$(grep '^nvidia-cuda-nvrtc' tests/cuda/requirements.txt)"
    fi
}

frameworks() { environment .venv-frameworks -e 'bindings/python[dev]' torch ray; }

# The version whose nccl.h the committed bindings are of. It needs no CUDA to be loaded.
nccl() { environment .venv-nccl --no-deps nvidia-nccl-cu12==2.32.3; }

case ${1:-} in
system | python | frameworks | nccl) "$1" ;;
cuda) cuda "${2:-}" ;;
*) echo "usage: tests/setup.sh system|python|frameworks|nccl|cuda [all]" >&2; exit 2 ;;
esac
