#!/bin/sh
# Draws the pictures of the README from the demo capture: the same model and the same screen as `sberf top --read`.
set -eu
cd "$(dirname "$0")/.."

picture() {
    out=$1
    shift
    cargo run --locked --quiet --example screenshot -- assets/demo.sberf "$out" "$@"
}

picture assets/screen.svg
picture assets/process.svg --keys "Enter o o"
