#!/bin/sh
# Installs what was built: the program, its manual pages, completions for bash, zsh and fish. Then asks whether the file shall
# grant the capabilities that the program needs, so that it works without root; without a terminal it prints the command.
#
#   scripts/install.sh install PROGRAM        PREFIX (/usr/local) says where to, DESTDIR below which directory
#   scripts/install.sh uninstall
set -eu

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
capabilities=cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog,cap_checkpoint_restore+ep
commands='top record export doctor'

say() { printf 'install: %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

# The nearest directory that exists says who may write there.
above() {
    dir=$1
    while [ ! -e "$dir" ]; do dir=$(dirname "$dir"); done
    printf '%s' "$dir"
}

as_owner() {
    if [ "$(id -u)" -eq 0 ] || [ -w "$(above "$root/bin")" ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "$(above "$root/bin") is not ours to write and there is no sudo; set PREFIX, or run as root"
    fi
}

# put MODE FILE TO
put() {
    as_owner install -D -m "$1" "$2" "$root/$3"
    say "$root/$3"
}

files() {
    printf 'bin/sberf share/man/man1/sberf.1 '
    for command in $commands; do printf 'share/man/man1/sberf-%s.1 ' "$command"; done
    printf 'share/bash-completion/completions/sberf share/zsh/site-functions/_sberf share/fish/vendor_completions.d/sberf.fish'
}

install_all() {
    program=$1
    [ -x "$program" ] || die "$program is not there; make build"
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    put 755 "$program" bin/sberf
    "$program" man >"$made/page"
    put 644 "$made/page" share/man/man1/sberf.1
    for command in $commands; do
        "$program" man "$command" >"$made/page"
        put 644 "$made/page" "share/man/man1/sberf-$command.1"
    done
    "$program" completions bash >"$made/page" && put 644 "$made/page" share/bash-completion/completions/sberf
    "$program" completions zsh >"$made/page" && put 644 "$made/page" share/zsh/site-functions/_sberf
    "$program" completions fish >"$made/page" && put 644 "$made/page" share/fish/vendor_completions.d/sberf.fish
    grant
}

# Capabilities are given to everybody who can run the file: never without being asked for.
grant() {
    if [ -n "${DESTDIR:-}" ] || ! (: </dev/tty) 2>/dev/null; then
        say "works as root; to have it work without: setcap $capabilities $root/bin/sberf"
        return 0
    fi
    printf '\nsberf needs root, or these capabilities on its file:\n  %s\n' "$capabilities"
    printf 'With them, whoever can run %s sees what every process on this machine does.\n' "$root/bin/sberf"
    printf 'Set them now? [y/N] '
    read -r answer </dev/tty || answer=
    case $answer in
    y | Y | yes | Yes) ;;
    *)
        say "not set; later: setcap $capabilities $root/bin/sberf"
        return 0
        ;;
    esac
    # Not in everybody's search path.
    setcap=$(PATH=$PATH:/usr/sbin:/sbin command -v setcap) || die "there is no setcap here (package libcap2-bin, libcap, or libcap-progs)"
    if [ "$(id -u)" -eq 0 ]; then
        "$setcap" "$capabilities" "$root/bin/sberf"
    else
        sudo "$setcap" "$capabilities" "$root/bin/sberf"
    fi
    say "set; \`sberf doctor\` says whether they do"
}

uninstall_all() {
    for file in $(files); do
        if [ -e "$root/$file" ]; then
            as_owner rm -f "$root/$file"
            say "removed $root/$file"
        fi
    done
}

case ${1:-} in
install) install_all "${2:?which program?}" ;;
uninstall) uninstall_all ;;
*) die "install PROGRAM, or uninstall" ;;
esac
