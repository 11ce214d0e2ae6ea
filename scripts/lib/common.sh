# shellcheck shell=bash disable=SC2034 # names are for the scripts that source this
# What every script shares: where things are, how it talks to the terminal, how it installs packages.
# Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
GUEST_DIR=$ROOT/target/guest

# Colours only for a terminal.
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
    BOLD='' GREEN='' RED='' DIM='' PLAIN=''
fi

heading() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }
note() { printf '   %s\n' "$*"; }
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
    exit 1
}

# Seconds since the epoch with milliseconds, as an integer number of milliseconds.
now_ms() { printf '%s\n' $((${EPOCHREALTIME/[.,]/} / 1000)); }
# Milliseconds to "12.3 s".
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

# The last lines of a log, under a heading; nothing if there is none.
show_log() {
    [[ -s $1 ]] || return 0
    printf -- '--- %s, last lines\n' "$1"
    tail -n "${2:-40}" "$1" | tr -d '\r'
}

have() { command -v "$1" >/dev/null 2>&1; }

# Whether C programs can be compiled and linked: Rust needs the linker, SQLite and AWS-LC the compiler.
can_compile() {
    have cc && printf '#include <stdio.h>\nint main(void) { return 0; }\n' |
        cc -x c -o /dev/null - >/dev/null 2>&1
}

# Prints the packages that are missing among what building, booting guests, the search of core files and the test of the API need.
missing_packages() {
    can_compile || printf '%s\n' gcc libc6-dev
    # Together: installing one can remove the other, if that is of another version of QEMU.
    { have qemu-system-x86_64 && have qemu-img && have qemu-io; } || printf '%s\n' qemu-system-x86 qemu-utils
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo libfaketime
    have gdb || echo gdb-minimal
    have gzip || echo gzip
    have xz || echo xz-utils
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

# Packages of a newer QEMU from elsewhere (backports) make the release's QEMU uninstallable
# ("held broken packages"). Then all of QEMU is taken from the release.
install_packages() {
    local codename
    local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 install
        --no-install-recommends)
    "${apt[@]}" "$@" && return
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ " $* " == *" qemu-"* && -n $codename ]] || return
    note "retrying with QEMU from $codename"
    "${apt[@]}" --allow-downgrades "$@" "qemu-utils/$codename" && return
    "${apt[@]}" --allow-downgrades "$@" {qemu-system-x86,qemu-system-common,qemu-system-data,qemu-utils}/"$codename"
}

# Installs what is missing; without the right to, says what to install.
ensure_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]})); then
        have apt-get || die "missing: ${missing[*]} (Debian package names); install them and run this again"
        ((EUID == 0)) ||
            die "missing packages; run: sudo apt-get update && sudo apt-get install ${missing[*]}"
        note "installing ${missing[*]}"
        apt-get -q update </dev/null
        install_packages "${missing[@]}" </dev/null || die "could not install ${missing[*]}"
        mapfile -t missing < <(missing_packages)
        ((${#missing[@]} == 0)) || die "still missing after installing: ${missing[*]}"
    fi
    have cargo || die "cargo is missing; install Rust from https://rustup.rs"
}
