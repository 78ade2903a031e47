#!/bin/sh
# Checks that sberf builds for aarch64: types and all, nothing is linked or run. Needs a compiler for it, because libbpf and zstd
# are C (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross), and Rust's target. Where one cannot be had it says so and passes.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

skip() {
    echo "skipped: $target: $*"
    exit 0
}

command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 || skip "no aarch64-linux-gnu-gcc here (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    command -v rustup >/dev/null 2>&1 || skip "Rust's target is not installed, and there is no rustup"
    rustup target add "$target" || skip "rustup cannot add the target"
fi
cargo check --locked --target "$target" --lib --bins
echo "$target: checked"
