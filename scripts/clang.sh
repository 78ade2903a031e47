#!/bin/sh
# Prints the name of a clang that can compile for BPF: $CLANG, `clang`, or the newest `clang-N` on PATH.
set -eu

usable() { "$1" --print-targets 2>/dev/null | grep -qw bpf; }

for name in ${CLANG:+"$CLANG"} clang; do
    if usable "$name"; then
        printf '%s\n' "$name"
        exit 0
    fi
done
version=30
while [ "$version" -ge 11 ]; do
    if usable "clang-$version"; then
        printf 'clang-%s\n' "$version"
        exit 0
    fi
    version=$((version - 1))
done
echo "clang: none here can compile for BPF (version 11 or newer is needed; \$CLANG names one that lies elsewhere)" >&2
exit 1
