#!/usr/bin/env bash
# Records a capture that is worth looking at: a shop (demo.c), a build, a pipeline, hogs on one CPU, direct reads and synced
# writes, all at once, and leaves out of it whatever else this machine runs.
#
#   scripts/demo.sh SBERF OUT.sberf [SECONDS]
set -euo pipefail
sberf=$(realpath "$1") out=$(realpath -m "$2") seconds=${3:-20}
cd "$(dirname "$0")/.."

work=$(mktemp -d /var/tmp/shop.XXXX)
mkdir "$work/src"
"$(scripts/clang.sh)" -O1 -g1 -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer -pthread -o "$work/shop" scripts/demo.c
root=
finish() {
    [ -z "$root" ] || kill -TERM -- "-$root" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# A file to read from the disk, and sources to build.
dd if=/dev/urandom of="$work/blocks" bs=1M count=64 conv=fsync status=none
for n in 1 2 3 4; do
    {
        echo "typedef unsigned long u;"
        for f in $(seq 1 220); do
            echo "u f${f}_$n(u *a, u n) { u s = $f; for (u i = 0; i < n; i++) { for (u j = i; j < n; j += $((f % 5 + 1)))" \
                "s += a[i] * (a[j] ^ $f) + (s >> $((f % 31))); switch (s % 5) { case 0: s += i; break;" \
                "case 1: s *= 3; break; case 2: s -= a[0]; break; default: a[i] += s; } } return s; }"
        done
    } >"$work/src/part$n.c"
done

# Everything that shall be seen descends from this one shell, in a process group of its own.
cat >"$work/day.sh" <<'DAY'
cd "$1"
PATH=/usr/bin:/bin
./shop journal &
(while :; do for n in 1 2 3 4; do clang -O2 -c -o /dev/null "src/part$n.c"; sleep 1; done; done) &
(while :; do tar -c -C /usr/share/doc . 2>/dev/null | gzip -1 >/dev/null; sleep 2; done) &
(while :; do dd if=blocks of=/dev/null bs=64k iflag=direct status=none; sleep 1.5; done) &
(while :; do dd if=/dev/zero of=synced bs=16k count=64 oflag=dsync status=none; sleep 0.5; done) &
(while :; do sleep 6; for hog in 1 2 3; do timeout 2 taskset -c 0 sh -c 'while :; do :; done' & done; wait; done) &
# Threads that fight for a lock, and a script that reads and writes a pipe; left out where the interpreter is.
command -v python3 >/dev/null && python3 convoy.py &
command -v perl >/dev/null &&
    (while :; do perl -e 'print "line $_\n" for 1..200000' | perl -ne '$n{length()}++; END { print %n }' >/dev/null; sleep 2; done) &
sleep 3600 &
wait
DAY
cat >"$work/convoy.py" <<'CONVOY'
import threading, time

lock = threading.Lock()

def work(turns):
    while True:
        with lock:
            sum(i * i for i in range(turns))
            time.sleep(0.002)

for turns in (500, 2000, 8000, 20000):
    threading.Thread(target=work, args=(turns,)).start()
CONVOY
setsid bash "$work/day.sh" "$work" &
root=$!
sleep 2

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" "$sberf" record -o "$work/all.sberf" --duration "$seconds"
"${as_root[@]}" chmod a+r "$work/all.sberf"
cargo run --locked --quiet --example tidy -- "$work/all.sberf" "$out" "$root"
chmod 644 "$out"
ls -l "$out"
