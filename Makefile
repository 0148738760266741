# Two commands on a fresh Debian or Ubuntu machine: `make demo` and `make test`. What is missing is installed where apt-get can, else named.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
CARGO ?= cargo
VENV := .venv
LIB := target/release/libpassrl.so
TVM_FFI := target/release/libpassrl_tvmffi.so
ROLLOUTS ?= bindings/python/examples/arithmetic_rollouts.jsonl
DEMO := target/demo
# Tests of the Python package that have more to do where torch is.
FRAMEWORK_TESTS := $(addprefix bindings/python/tests/,test_zero_copy.py test_arrays.py test_ready.py test_torch_ops.py test_tvm_ffi.py test_torch_ranks.py test_ray_ranks.py test_linking_guide.py test_torch_cpp.py)

# `make install PREFIX=/opt/passrl DESTDIR= LIBDIR=lib`: see bindings/cpp/install.sh.
PREFIX ?= /usr/local
LIBDIR ?= lib
DESTDIR ?=

.PHONY: help build demo install test wheel wheel-release docs tvm-ffi parity frameworks train-demo ranks pictures bench bench-peers bench-model clean header library rollouts miri aarch64 avx512 aarch64-wheel gpu-pack budgets

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: library $(VENV)/.installed ## target/release/libpassrl.so, and a .venv in which `import passrl` works
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -c 'import passrl; print("passrl imports from", passrl.__path__[0])'

library:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: curl https://sh.rustup.rs -sSf | sh" >&2; exit 1; }
	$(CARGO) build --release --locked
	@ln -sf libpassrl.so $(LIB).0  # the SONAME, for programs run from the build tree

# Cargo alone knows whether the library is current, so its goal is phony; this one is not.
$(VENV)/.installed: bindings/python/pyproject.toml tests/setup.sh
	@PYTHON=$(PYTHON) tests/setup.sh python
	@touch $@

demo: build ## shape ROLLOUTS=file with the preset pass: a table, target/demo/advantages.npz and target/demo/credit.png
	@mkdir -p $(DEMO)
	$(VENV)/bin/passrl shape $(ROLLOUTS) --preset pass --out $(DEMO)/advantages.npz --plot $(DEMO)/credit.png
	@ls -l $(DEMO)/advantages.npz $(DEMO)/credit.png

# `sudo make install` after `make build` needs no cargo.
install: $(if $(shell command -v $(CARGO)),library) ## library, headers, CMake package, pkg-config file and licences to PREFIX (/usr/local), below DESTDIR
	@CC="$(CC)" PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" DESTDIR="$(DESTDIR)" bindings/cpp/install.sh $(LIB)

test: ## everything that can run here; ends by saying what was skipped and why
	@PYTHON=$(PYTHON) CARGO=$(CARGO) tests/run.sh

docs: build ## the reference of C, C++ (Doxygen) and Python (pdoc) with the guides, in target/docs; a warning fails
	@command -v doxygen >/dev/null || { echo "doxygen is missing: sudo apt-get install doxygen" >&2; exit 1; }
	@rm -rf target/docs && mkdir -p target/docs
	@doxygen docs/Doxyfile && { [ ! -s target/docs/doxygen.log ] || { cat target/docs/doxygen.log >&2; exit 1; }; }
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -W ignore -m pdoc -o target/docs/python passrl '!passrl.cli' '!passrl.ready' '!passrl.torch' '!passrl.torch_ops' '!passrl.mpi' '!passrl.plugins'
	@echo "target/docs/c/index.html target/docs/python/passrl.html"

tvm-ffi: library ## target/release/libpassrl_tvmffi.so: the library for apache-tvm-ffi (see bindings/tvm_ffi/passrl_tvmffi.c)
	CC="$(CC)" bindings/tvm_ffi/build.sh $(TVM_FFI)

wheel: build ## one py3-none-<platform> wheel with the library inside, and the source distribution, in target/wheel
	@rm -rf target/wheel && mkdir -p target/wheel
	@cp $(LIB) target/wheel/libpassrl.so && { strip --strip-debug target/wheel/libpassrl.so || true; }
	@PYTHON=$(VENV)/bin/python bindings/python/wheel.sh target/wheel target/wheel/libpassrl.so && rm target/wheel/libpassrl.so
	@ls -l target/wheel

wheel-release: ## manylinux_2_17 wheels for x86_64 and aarch64 (zig and auditwheel, in a .venv-wheel), built and installed once, in target/wheel-release
	@PYTHON=$(PYTHON) bindings/python/release.sh target/wheel-release

parity: build ## calls verl, TRL, OpenRLHF and others in a venv of its own (5.5 GB), compares with tests/parity/golden, prints the table of presets
	@PYTHON=$(PYTHON) tests/parity/setup.sh
	@.venv-parity/bin/python -W ignore tests/parity/generate.py
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python tests/parity/compare.py

# torch's default wheel brings CUDA's libraries along: too much for every test run.
frameworks: library ## the tests that need torch, which `make test` skips: arrays, operators, the C++ examples, ranks over gloo and Ray, the plug-ins in the frameworks (a .venv-frameworks of 7 GB, about 3 GB to fetch)
	@PYTHON=$(PYTHON) tests/setup.sh frameworks
	.venv-frameworks/bin/python -m pytest -q -rsfE -p no:cacheprovider $(FRAMEWORK_TESTS)
	@tests/frameworks/setup.sh .venv-frameworks
	@tests/frameworks/run.sh .venv-frameworks

# Small matrices: a second OpenMP thread only waits for the first.
train-demo: library ## PASS against two rivals in TRL's GRPOTrainer, 9 runs of a small model (minutes; goes on where it was interrupted), and Theorem 1: target/train-demo
	@[ -x .venv-frameworks/bin/python ] || PYTHON=$(PYTHON) tests/setup.sh frameworks
	@tests/frameworks/setup.sh .venv-frameworks
	OMP_NUM_THREADS=1 .venv-frameworks/bin/python bindings/python/examples/train_demo/theorem1.py
	OMP_NUM_THREADS=1 .venv-frameworks/bin/python -W ignore bindings/python/examples/train_demo/train.py

ranks: ## groups over ranks in full: every preset, split and layout; 1,024 virtual ranks; MPI; NCCL's wheel (460 MB in .venv-nccl)
	@PYTHON=$(PYTHON) CARGO=$(CARGO) tests/setup.sh system
	@PYTHON=$(PYTHON) tests/setup.sh nccl
	@mkdir -p target
	@PASSRL_RANKS=all $(CARGO) test --locked --test ranks --test mpi --test nccl --test ranks_scale --test ranks_presets -- --nocapture --test-threads=1 \
		>target/ranks.log 2>&1 || { tail -n 60 target/ranks.log; exit 1; }
	@grep -vE '^running |^$$|^test result|Compiling|Finished' target/ranks.log
	@grep -h '^ranks: ' target/ranks.log

pictures: build ## draw docs/pictures again from the example's rollouts (page.png wants a Chromium and playwright)
	PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python docs/pictures/draw.py
	@ls -l docs/pictures/*.png

# FILTER='paper/gae' looks at what the expression names (size/case/type/threads/cache) and leaves no record.
bench: build ## every estimator against the memory floor, the small end, time against tokens; target/bench (summary.json, pictures), benches/record; FILTER=... for a quick look
	@mkdir -p target/bench
	@echo "benches are built and run (about 7 minutes); log: target/bench/log"
	@PASSRL_BENCH_RECORD=$(if $(FILTER),,1) $(CARGO) bench --locked --bench speed -- --quiet --noplot '$(FILTER)' >target/bench/log 2>&1 || { tail -n 40 target/bench/log; exit 1; }
	@sed -n '/, passrl [0-9]/,$$p' target/bench/log
ifndef FILTER
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python benches/picture.py
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python bindings/python/benches/overhead.py
endif

bench-peers: library ## what people run today beside ours, on the same batches (torch, verl, TRL, OpenRLHF, torchrl, scipy in a .venv-peers of 5.5 GB): target/bench/peers.json, peers.png
	@PYTHON=$(PYTHON) benches/peers/setup.sh
	@PYTHONDONTWRITEBYTECODE=1 .venv-peers/bin/python -W ignore benches/peers/run.py $(PEERS)

gpu-pack: library ## target/gpu-check.tar.gz: tests/gpu/check with the library and every case of the tests, for a machine with a GPU, python3 and torch
	PASSRL_GPU_CASES=$(CURDIR)/target/gpu-cases.bin $(CARGO) test --locked --test gpu_cases
	@tar -czf target/gpu-check.tar.gz --transform 's|^|passrl-gpu-check/|' tests/gpu/check tests/gpu/*.py bindings/python/passrl/_ffi.py bindings/python/passrl/errors.py $(LIB) target/gpu-cases.bin
	@ls -l target/gpu-check.tar.gz

bench-model: ## benches/MODEL.md: what the counted bytes and launches of the CUDA kernels give on paper, from target/budgets.json or tests/budgets/recorded.txt
	@$(PYTHON) benches/model.py

# nvcc takes minutes an architecture; what it has compiled is kept in target/budgets. PASSRL_ARCHITECTURES="80 90": those alone.
budgets: ## what a run on CUDA costs against its budgets (launches, traffic, balance; with nvcc registers and spills): a table, and target/budgets.json
	@PASSRL_BUDGETS=all $(CARGO) test --locked --test cuda_budgets -- --nocapture --test-threads=1 budgets_are_held

miri: ## small batches through the library's own C functions under Miri (nightly toolchain with miri and rust-src)
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { echo "Miri is missing: rustup toolchain install nightly --component miri,rust-src" >&2; exit 1; }
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows -Zmiri-permissive-provenance" $(CARGO) +nightly miri test --locked --test small

aarch64: ## the output hashes of the case table on aarch64, under qemu-user (minutes)
	@PYTHON=$(PYTHON) tests/aarch64.sh

avx512: ## the paths for AVX-512 against the others, in an emulator of a processor that has it (Bochs; minutes)
	@CARGO=$(CARGO) tests/avx512.sh

aarch64-wheel: ## the release wheel for aarch64 (make wheel-release) in an arm64 Python under qemu-user: the bits of the x86_64 wheel
	@PYTHON=$(PYTHON) tests/aarch64_wheel.sh

header: ## rewrite what is generated and committed: include/passrl.h, docs/third-party-licences.md
	BLESS=1 $(CARGO) test --locked --test header --test licences

rollouts: ## rewrite the sample rollouts, bindings/python/examples/arithmetic_rollouts.jsonl: the same bytes unless the program changed
	$(PYTHON) bindings/python/examples/arithmetic_rollouts.py

clean: ## remove target and the virtual environments
	rm -rf target $(VENV) .venv-frameworks .venv-wheel .venv-nccl
