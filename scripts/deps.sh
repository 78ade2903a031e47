#!/bin/sh
# What building, testing and measuring need from the distribution: installs what is missing, says what and why,
# and is silent when nothing is. Rust itself is never installed, only checked for.
#
#   scripts/deps.sh [--dry-run] [build] [test] [bench]        default: build
#
# Needed packages that cannot be had end it with exit code 1; wanted ones (only some tests or rows of the benchmark use
# them) are reported and passed over.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

dry_run=
groups=
for arg in "$@"; do
    case $arg in
    --dry-run) dry_run=1 ;;
    build | test | bench) groups="$groups $arg" ;;
    *) die "unknown argument '$arg' (known: --dry-run build test bench)" ;;
    esac
done
[ -n "$groups" ] || groups=build

# The distribution's package manager; empty if it is none that we know.
manager=
for candidate in apt-get:apt dnf:dnf pacman:pacman zypper:zypper apk:apk; do
    if command -v "${candidate%%:*}" >/dev/null 2>&1; then
        manager=${candidate##*:}
        break
    fi
done

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "not root and there is no sudo; run as root: $*"
    fi
}

refreshed=
# Package lists are fetched at most once, and only when something is missing.
refresh() {
    [ -z "$refreshed" ] || return 0
    refreshed=1
    case $manager in
    apt) as_root apt-get update -qq ;;
    pacman) as_root pacman -Sy --noconfirm >/dev/null ;;
    esac
}

# install_packages NAME…: what the package manager says is shown only if it fails.
install_packages() {
    refresh
    log=$(mktemp)
    if run_manager "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
        return 0
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
}

run_manager() {
    case $manager in
    apt) as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ;;
    dnf) as_root dnf install -y -q "$@" ;;
    pacman) as_root pacman -S --noconfirm --needed --quiet "$@" ;;
    zypper) as_root zypper --non-interactive --quiet install --no-recommends "$@" ;;
    apk) as_root apk add --quiet "$@" ;;
    esac
}

# Probes: exit status 0 when the thing is there. /usr/sbin is not on every user's PATH.
has_command() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }
has_header() { [ -e "/usr/include/$1" ] || ls /usr/include/*/"$1" >/dev/null 2>&1; }
has_clang() { scripts/clang.sh >/dev/null 2>&1; }
has_libc() { has_header stdio.h; }
# Debian keeps it out of PATH.
has_postgres() { has_command postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }
# libbpf-tools is called bpf-tools or bcc in places, and its programs carry a prefix there.
has_runqlat() { has_command runqlat || has_command bpf-runqlat; }
has_perf() { has_command perf && PATH="$PATH:/usr/sbin" perf version >/dev/null 2>&1; }

has_static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

# field NAME LIST: the package for this manager out of "apt=a dnf=b ..."; empty if it has none.
field() {
    for pair in $2; do
        [ "${pair%%=*}" = "$1" ] && { printf '%s' "${pair#*=}"; return 0; }
    done
    return 0
}

needed= # packages to be installed together
wanted= # packages to be tried one by one
absent= # what has no package here, one a line
checking= # second look: what is still missing is reported, not installed

# item KIND PROBE WHY PACKAGES: KIND is need or want, PROBE a command line that succeeds when nothing is to be done.
item() {
    kind=$1 probe=$2 why=$3 packages=$4
    # shellcheck disable=SC2086 # a probe is a function and its argument
    $probe && return 0
    package=
    [ -z "$manager" ] || package=$(field "$manager" "$packages")
    if [ -n "$checking" ] || [ -z "$package" ]; then
        [ "$kind" = need ] && absent="$absent
  $why ($packages)"
        [ "$kind" = want ] && say "not to be had here, passed over: $why"
        return 0
    fi
    case " $needed $wanted " in *" $package "*) return 0 ;; esac
    say "${dry_run:+dry run: }installing $package: $why"
    case $kind in
    need) needed="$needed $package" ;;
    want) wanted="$wanted $package" ;;
    esac
}

build() {
    item need "has_command gcc" "a C compiler, builds libbpf and zstd" \
        "apt=gcc dnf=gcc pacman=gcc zypper=gcc apk=gcc"
    item need has_libc "C library headers" \
        "apt=libc6-dev dnf=glibc-devel pacman=glibc zypper=glibc-devel apk=musl-dev"
    item need "has_command make" "builds libbpf" "apt=make dnf=make pacman=make zypper=make apk=make"
    item need "has_command pkg-config" "finds libelf and zlib" \
        "apt=pkg-config dnf=pkgconf-pkg-config pacman=pkgconf zypper=pkg-config apk=pkgconf"
    item need has_clang "clang with the BPF target, compiles src/bpf" \
        "apt=clang dnf=clang pacman=clang zypper=clang apk=clang"
    item need "has_header libelf.h" "libelf headers, libbpf reads object files with them" \
        "apt=libelf-dev dnf=elfutils-libelf-devel pacman=libelf zypper=libelf-devel apk=elfutils-dev"
    item need "has_header zlib.h" "zlib headers, libbpf reads the kernel's configuration with them" \
        "apt=zlib1g-dev dnf=zlib-devel pacman=zlib zypper=zlib-devel apk=zlib-dev"
    if [ "$manager" = apk ]; then
        item need "has_header linux/perf_event.h" "kernel headers" "apk=linux-headers"
    fi
}

libbpf_tools() {
    item want has_runqlat "libbpf-tools (runqlat, offcputime, biolatency), whose figures ours are compared with" \
        "apt=libbpf-tools dnf=libbpf-tools pacman=libbpf-tools zypper=libbpf-tools apk=bcc-tools"
}

tests() {
    item need "has_command cc" "cc, builds the workloads" "apt=gcc dnf=gcc pacman=gcc zypper=gcc apk=gcc"
    item want "has_command taskset" "taskset, pins workloads to a CPU" \
        "apt=util-linux dnf=util-linux pacman=util-linux zypper=util-linux apk=util-linux-misc"
    libbpf_tools
    item want has_perf "perf, whose stacks ours are compared with" \
        "apt=linux-perf dnf=perf pacman=perf zypper=perf apk=perf"
    shipped_programs
    # Other kernels are Debian's, fetched by apt: elsewhere those tests are skipped.
    if [ "$manager" = apt ]; then
        item want "has_command qemu-system-x86_64" "QEMU, boots other kernels" "apt=qemu-system-x86"
        item want has_static_busybox "a static busybox, the first program of those machines" "apt=busybox-static"
        item want "has_command xz" "xz, unpacks kernels" "apt=xz-utils"
    fi
}

# What distributions ship without frame pointers, and the runtimes: their stacks must be whole.
shipped_programs() {
    item want "has_command python3" "python3, whose stacks are tested" \
        "apt=python3 dnf=python3 pacman=python zypper=python3 apk=python3"
    item want "has_command perl" "perl, the same" "apt=perl dnf=perl pacman=perl zypper=perl apk=perl"
    item want "has_command git" "git, the same" "apt=git dnf=git pacman=git zypper=git apk=git"
    item want "has_command xz" "xz, the same" "apt=xz-utils dnf=xz pacman=xz zypper=xz apk=xz"
    item want "has_command sqlite3" "sqlite3, the same" \
        "apt=sqlite3 dnf=sqlite pacman=sqlite zypper=sqlite3 apk=sqlite"
    item want "has_command openssl" "openssl, the same" \
        "apt=openssl dnf=openssl pacman=openssl zypper=openssl apk=openssl"
    item want has_postgres "postgres, the same; its package may start a server" \
        "apt=postgresql dnf=postgresql-server pacman=postgresql zypper=postgresql-server apk=postgresql"
    item want "has_command node" "node, the same" "apt=nodejs dnf=nodejs pacman=nodejs zypper=nodejs apk=nodejs"
    item want "has_command javac" "java with its compiler, the same" \
        "apt=default-jdk-headless dnf=java-latest-openjdk-devel pacman=jdk-openjdk zypper=java-devel apk=openjdk21-jdk"
}

benches() {
    libbpf_tools
    item want has_perf "perf, whose sampling ours is compared with" \
        "apt=linux-perf dnf=perf pacman=perf zypper=perf apk=perf"
    item want "has_command htop" "htop, the process viewer that our cost is compared with" \
        "apt=htop dnf=htop pacman=htop zypper=htop apk=htop"
}

look() {
    for group in $groups; do
        case $group in
        build) build ;;
        test) tests ;;
        bench) benches ;;
        esac
    done
}

look
if [ -z "$dry_run" ]; then
    # shellcheck disable=SC2086 # lists of names
    [ -z "$needed" ] || install_packages $needed || true
    for package in $wanted; do
        install_packages "$package" || true
    done
    checking=1
    absent=
    [ -z "$needed$wanted" ] || look
fi
[ -z "$absent" ] || die "these are missing and could not be installed; please install them and try again:$absent"
