#!/usr/bin/env bash
# Everything that must hold before a change goes in: formatting, lints, all tests. Ends with the closing line of each test
# program; the exit status is 0 only if all of it passed.
#
# Tests that need a live kernel (`tests/live*`) load BPF programs and measure time, so they run one at a time, and as root:
# through sudo where we are not. Without either they say that they were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

step() {
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee -a "$log" || failed+=("$name")
}

# cargo_test_live ARGS…: as `cargo test`, each program started as root.
cargo_test_live() {
    if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then
        local triple
        triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
        env "CARGO_TARGET_${triple}_RUNNER=sudo -E" cargo test "$@"
    else
        cargo test "$@"
    fi
}

# Each file or directory in tests/ that cargo makes a program of.
quick=() live=()
for path in tests/*.rs tests/*/main.rs; do
    [ -e "$path" ] || continue
    name=${path#tests/} name=${name%/main.rs} name=${name%.rs}
    case $name in
    live*) live+=(--test "$name") ;;
    kernels) ;; # below
    *) quick+=(--test "$name") ;;
    esac
done

step "formatting" cargo fmt --check
step "lints" cargo clippy --locked --all-targets -- -D warnings
step "tests" cargo test --locked --no-fail-fast --lib --bins "${quick[@]}"
step "documentation tests" cargo test --locked --doc
if [ ${#live[@]} -gt 0 ]; then
    step "tests on the live kernel" cargo_test_live --locked --no-fail-fast "${live[@]}" -- --test-threads=1
fi

# failed_tests: of each test that failed, its program (an option of cargo) and its name.
failed_tests() {
    awk '
        /^ +Running / { program = $2 == "unittests" ? "--lib" : $2; sub(/\/main\.rs$/, "", program)
                        sub(/^tests\//, "--test=", program); sub(/\.rs$/, "", program); listed = 0 }
        /^failures:$/ { listed = 1 }
        /^test result:/ { listed = 0 }
        listed && /^    [A-Za-z0-9_:]+$/ { print program, $1 }' "$log" | sort -u
}

# Nothing failed but single tests: no lint, nothing that does not compile, no program that died.
only_tests_failed() {
    ! [[ ${failed[*]} =~ formatting|lints|documentation ]] &&
        ! grep -q '^error: could not compile' "$log" &&
        [ "$(grep '^error: test failed, to rerun' "$log" | sort -u | wc -l)" = "$(failed_tests | cut -d' ' -f1 | sort -u | wc -l)" ]
}

# They measure a machine that does other things, too. What failed is tried once more, alone, and said to have been.
mapfile -t again < <(failed_tests)
if [ ${#again[@]} -gt 0 ] && [ ${#again[@]} -le 5 ] && only_tests_failed; then
    failed=()
    for test in "${again[@]}"; do
        read -r program name <<< "$test"
        step "once more, alone: $name" cargo_test_live --locked "$program" -- --test-threads=1 --exact "$name"
    done
fi

# Virtual machines, for which root is not needed; what cannot be had is skipped. They are emulated, and slow beside a load: what
# failed is tried once more here, too.
other_kernels() {
    cargo test --locked --test kernels || { echo "once more: other kernels" && cargo test --locked --test kernels; }
}
step "tests on other kernels" other_kernels

printf '\n== result\n'
grep -E '^(test result:|test .* \.\.\. FAILED$|.*skipped: )' "$log" || true
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "all passed"
