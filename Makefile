# Two commands on a fresh Debian or Ubuntu machine: `make demo` and `make test`. What is missing is installed where apt-get can, else named.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
CARGO ?= cargo
VENV := .venv
LIB := target/release/libpassrl.so
ROLLOUTS ?= bindings/python/examples/arithmetic_rollouts.jsonl
DEMO := target/demo

.PHONY: help build demo test parity bench clean header library

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test: ## everything that can run here; ends by saying what was skipped and why
	@PYTHON=$(PYTHON) CARGO=$(CARGO) tests/run.sh

parity: build ## calls verl, TRL, OpenRLHF and others in a venv of its own (5.5 GB), compares with tests/parity/golden, prints the table of presets
	@PYTHON=$(PYTHON) tests/parity/setup.sh
	@.venv-parity/bin/python -W ignore tests/parity/generate.py
	@PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python tests/parity/compare.py

bench: ## one table against a copy of the same bytes, recorded in benches/record
	@mkdir -p target
	@echo "benches are built and run (about a minute each); log: target/bench.log"
	@PASSRL_BENCH_RECORD=1 $(CARGO) bench --locked --bench pass -- --quiet --noplot >target/bench.log 2>&1 || { tail -n 40 target/bench.log; exit 1; }
	@sed -n '/, passrl [0-9]/,$$p' target/bench.log

header: ## rewrite what is generated and committed: include/passrl.h, docs/third-party-licences.md
	BLESS=1 $(CARGO) test --locked --test header --test licences

clean: ## remove target and .venv
	rm -rf target $(VENV)
