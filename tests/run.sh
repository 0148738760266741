#!/usr/bin/env bash
# Runs everything that can run here, then says what was skipped and why. Each stage's output is kept in target/test/<stage>.log.
# The last line, alone: "N passed, N failed, N skipped". Exit status 1 where anything failed.
#
# A Rust or C test that cannot run prints a line beginning "SKIPPED: " with the reason and returns; pytest says it with -rsfE.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
CARGO=${CARGO:-cargo}
log=target/test
mkdir -p $log
rm -f $log/*.log
passed=0 failed=0 skipped=0
failures=() skips=()

skip() {
    skipped=$((skipped + 1))
    skips+=("$1")
}

fail() {
    failed=$((failed + 1))
    failures+=("$1")
}

# stage NAME COMMAND...: runs it, shows its output, keeps it; its status is the command's.
stage() {
    local name=$1 begin=$SECONDS status
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log/$name.log"
    status=${PIPESTATUS[0]}
    printf -- '-- %s: %s in %d s\n' "$name" "$([ "$status" = 0 ] && echo done || echo "FAILED ($status)")" $((SECONDS - begin))
    return "$status"
}

# A check that is one thing: it passes or fails as a whole.
check() {
    if stage "$@"; then passed=$((passed + 1)); else fail "$1: see $log/$1.log"; fi
}

# Counts of `cargo test` and the tests that failed, by name; a failure without a named test is one (it did not build).
count_cargo() {
    local name=$1 status=$2 file=$log/$1.log p f i line named=0
    read -r p f i < <(awk '/^test result:/ {p += $4; f += $6; i += $8} END {print p + 0, f + 0, i + 0}' "$file")
    passed=$((passed + p))
    while IFS= read -r line; do
        fail "$name: $line"
        named=$((named + 1))
    done < <(sed -n 's/^test \(.*\) \.\.\. FAILED.*$/\1/p' "$file" | sort -u)
    [ "$f" -gt "$named" ] && for ((; named < f; named++)); do fail "$name: a test that $file names"; done
    [ "$status" != 0 ] && [ "$named" = 0 ] && fail "$name: ended with $status before its tests did; see $file"
    [ "$i" -gt 0 ] && while IFS= read -r line; do skip "$name: $line is marked #[ignore]"; done < <(sed -n 's/^test \(.*\) \.\.\. ignored.*$/\1/p' "$file")
    # A test that skips itself counts as passed for cargo: move it over.
    while IFS= read -r line; do
        skip "$name: $line"
        [ "$passed" -gt 0 ] && passed=$((passed - 1))
    done < <(sed -n 's/^.*SKIPPED: *//p' "$file" | sort -u)
}

count_pytest() {
    local status=$1 file=$log/pytest.log summary p f e s line named=0
    summary=$(grep -E '^(=+ )?.*(passed|failed|error|skipped|no tests ran).* in [0-9.]+s' "$file" | tail -1)
    number() { grep -oE "[0-9]+ $1" <<<"$summary" | awk '{n += $1} END {print n + 0}'; }
    p=$(number passed) f=$(number failed) e=$(number error) s=$(number skipped)
    passed=$((passed + p))
    while IFS= read -r line; do
        fail "pytest: $line"
        named=$((named + 1))
    done < <(sed -nE 's/^(FAILED|ERROR) ([^ ]+).*$/\2/p' "$file" | sort -u)
    # A failure without a name is one all the same; 5: no test ran.
    [ "$status" != 0 ] && [ "$named" = 0 ] && fail "pytest: ended with $status; see $file"
    # "SKIPPED [3] tests/test_torch.py:5: no torch": three of one reason.
    skipped=$((skipped + s))
    while IFS= read -r line; do skips+=("pytest: $line"); done < <(sed -n 's/^SKIPPED //p' "$file")
}

begin=$SECONDS
if ! stage setup tests/setup.sh system; then
    fail "setup: $(grep 'missing' $log/setup.log | head -1)"
fi
# NVRTC, with which one test compiles the kernels; without it that test says that it is skipped.
stage cuda-compiler tests/setup.sh cuda || true
# `cargo test` alone leaves target/debug/libpassrl.so as the last build made it; tests that load it want this one.
check build "$CARGO" build --locked
check compile "$CARGO" test --locked --no-run
longest=(cuda_build cuda_kl cuda_pieces)
others=()
for file in tests/*.rs; do
    name=$(basename "$file" .rs)
    [[ " ${longest[*]} " == *" $name "* ]] || others+=("--test=$name")
done
# Most of what follows keeps one core busy: the other brings, meanwhile, what the stages after it ask for. What fails there fails again where it counts.
meanwhile() {
    make --no-print-directory library
    tests/setup.sh python
    # The longest of the tests, each of them one thread of the simulator's or of the compiler's for minutes.
    "$CARGO" test --locked --no-fail-fast ${longest[@]/#/--test=} -- --show-output >$log/longest.log 2>&1
    echo $? >$log/longest.status
    # The kernels once more in the simulated driver's checked build: bounds to the byte, races, reads of what nobody wrote.
    CUDASIM_CHECKED=1 CUDASIM_TIMEOUT=3600 PASSRL_SEEDS=10 "$CARGO" test --locked --test cuda -- --show-output \
        every_case_has_the_bits_of_the_cpu_packed random_cases_have_the_bits_of_the_cpu >$log/checked.log 2>&1
    echo $? >$log/checked.status
}
rm -f $log/checked.status $log/longest.status
meanwhile >$log/meanwhile.log 2>&1 &
meanwhile=$!
# --nocapture would interleave threads; --show-output prints what passing tests say, among it "SKIPPED: ".
stage cargo "$CARGO" test --locked --no-fail-fast --lib "${others[@]}" -- --show-output
count_cargo cargo $?
stage cargo-doc "$CARGO" test --locked --doc
count_cargo cargo-doc $?
# The simulated CUDA driver itself, in its fast and its checked build: a seeded bug for each check.
stage cudasim "$CARGO" test --locked --no-fail-fast -p cudasim -- --show-output
count_cargo cudasim $?
# Done meanwhile.
wait $meanwhile
stage longest sh -c "cat $log/longest.log && exit \$(cat $log/longest.status)"
count_cargo longest $?
stage cuda-checked sh -c "cat $log/checked.log && exit \$(cat $log/checked.status)"
count_cargo cuda-checked $?
# Lints that find bugs; those of style differ from one clippy to the next and are the developer's business.
if "$CARGO" clippy --version >/dev/null 2>&1; then
    check clippy "$CARGO" clippy --quiet --locked --lib -- -A clippy::all -D clippy::correctness -D clippy::suspicious
else
    skip "clippy: not installed; rustup component add clippy"
fi
check library make --no-print-directory library
if [ ! -f bindings/python/pyproject.toml ]; then
    skip "python: bindings/python/pyproject.toml is not there"
elif ! stage python tests/setup.sh python; then
    fail "python: $(grep '^setup:' $log/python.log | tail -1)"
else
    touch .venv/.installed
    stage pytest .venv/bin/python -m pytest -q -rsfE -p no:cacheprovider bindings/python/tests
    count_pytest $?
    check mypy .venv/bin/python -m mypy --config-file bindings/python/pyproject.toml bindings/python/passrl bindings/python/passrl_verl.py bindings/python/examples bindings/python/benches
fi
[ -x .venv/bin/python ] && check parity env PYTHONDONTWRITEBYTECODE=1 .venv/bin/python tests/parity/compare.py --strict
if command -v cargo-deny >/dev/null; then
    check deny cargo deny --offline check licenses bans sources
else
    skip "deny: cargo-deny is not installed (cargo install cargo-deny); tests/licences.rs has held the linked crates to the same list"
fi
# Every hostile argument and bad batch once more under memcheck.
if command -v valgrind >/dev/null; then
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    check memcheck env "CARGO_TARGET_${host}_RUNNER=valgrind -q --error-exitcode=9" \
        "$CARGO" test --locked --test hostile -- --test-threads=1 wrong_arguments bad_data strict
else
    skip "valgrind: not installed; sudo apt-get install valgrind"
fi
command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 || skip "cuda: no GPU here; the CUDA backend ran on the simulated driver alone"

printf '\n== left to others\n'
echo "make frameworks  torch and jax arrays, torch's C++, the plug-ins in verl, TRL, OpenRLHF and others"
echo "make parity      the presets against the frameworks' own functions (their recorded numbers were met above)"
echo "make train-demo  a training run in TRL's GRPOTrainer"
printf '\n== summary, after %d s\n' $((SECONDS - begin))
for line in ${skips[@]+"${skips[@]}"}; do echo "skipped  $line"; done
for line in ${failures[@]+"${failures[@]}"}; do echo "FAILED   $line"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
