#!/bin/sh
# Checks that there is a Rust toolchain as new as Cargo.toml asks for, and says how to get one if not.
#
#   scripts/rust.sh [COMPONENT…]     also wants these (rustfmt, clippy); adds them where rustup manages the toolchain
set -eu
cd "$(dirname "$0")/.."

wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)

how_to_get() {
    [ -z "${SUDO_USER:-}" ] || echo "rust: under sudo, $SUDO_USER's toolchain is out of sight: run make without sudo, it asks for it itself" >&2
    cat >&2 <<END
rust: $1
rust: sberf needs Rust $wanted or newer. With rustup (https://rustup.rs):

    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh      # none yet
    rustup update stable                                                # one that is too old

Then open a new shell and try again.
END
    exit 1
}

command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 || how_to_get "no cargo and rustc on PATH"

# 1.88.0-nightly (…) -> 1 88
version=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
[ -n "$version" ] || how_to_get "rustc does not run here"
major=${version%%.*} minor=${version#*.}
wanted_major=${wanted%%.*} wanted_minor=${wanted#*.}
wanted_minor=${wanted_minor%%.*}
if [ "$major" -lt "$wanted_major" ] || { [ "$major" -eq "$wanted_major" ] && [ "$minor" -lt "$wanted_minor" ]; }; then
    how_to_get "this is Rust $version"
fi

for component in "$@"; do
    case $component in
    rustfmt) program=cargo-fmt ;;
    clippy) program=cargo-clippy ;;
    *) program=$component ;;
    esac
    # rustup puts a stand-in on PATH that fails when the component is absent.
    "$program" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null 2>&1 || {
        echo "rust: $component is missing; install it from where this Rust came" >&2
        exit 1
    }
    echo "rust: adding $component" >&2
    rustup component add "$component" >&2
done
