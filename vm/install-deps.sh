#!/usr/bin/env bash
# Installs the Debian packages that building, the demo or the tests need, and nothing that is there.
#
#     vm/install-deps.sh [--no-install] [build] [demo] [test] [oracle] [lab] [image]
#
# As root directly, else through sudo. With --no-install it only says what is missing (exit 1 if
# anything is). No service is started, and none is left enabled.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:$HOME/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin"

# What is needed, when, how to see whether it is there, and the packages that bring it.
# A plain word as the check is the name of a command.
NEEDS=(
    "build | cc_links        | gcc libc6-dev"
    "build | make            | make"
    "build | cargo_is_new    | cargo-web rustc-web"
    "build | ca_certificates | ca-certificates"
    "demo  | perl            | perl-base"
    "demo  | ip              | iproute2"
    "demo  | unshare         | util-linux"
    "demo  | nsenter         | util-linux"
    "demo  | setpriv         | util-linux"
    "demo  | nginx           | nginx"
    "demo  | curl            | curl"
    "demo  | tcpdump         | tcpdump"
    "demo  | arping_iputils  | iputils-arping"
    "test  | ping            | iputils-ping"
    "test  | jq              | jq"
    "test  | dnsmasq         | dnsmasq-base"
    "test  | openssl         | openssl"
    "test  | socat           | socat"
    "test  | wrk             | wrk"
    "test  | nft             | nftables"
    "test  | perl_times      | perl"
    "test  | iptables        | iptables"
    "test  | arptables       | arptables"
    "test  | strace          | strace"
    "test  | valgrind        | valgrind"
    "test  | ed              | ed"
    "test  | vim.tiny        | vim-tiny"
    "test  | shellcheck      | shellcheck"
    "test  | cargo-fmt       | rustfmt-web"
    "test  | cargo-clippy    | rust-web-clippy"
    "oracle | linux.uml      | user-mode-linux"
    "oracle | ipvsadm        | ipvsadm"
    "oracle | modprobe       | kmod"
    "oracle | unshare        | util-linux"
    "oracle | ip             | iproute2"
    "oracle | jq             | jq"
    "lab   | qemu-system-x86_64 | qemu-system-x86"
    "lab   | setpriv         | util-linux"
    "image | dpkg-deb        | dpkg"
    "image | apt-get         | apt"
    "image | lz4             | lz4"
    "image | xz              | xz-utils"
    "image | zstd            | zstd"
)

main() {
    local install=1 groups=() group
    while (($#)); do
        case $1 in
            --no-install) install=0 ;;
            build | demo | test | oracle | lab | image) groups+=("$1") ;;
            -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
            *) fail "unknown argument '$1': expected --no-install, build, demo, test, oracle, lab or image" ;;
        esac
        shift
    done
    ((${#groups[@]})) || groups=(build demo)

    local packages=()
    for group in "${groups[@]}"; do
        missing_of "$group"
    done
    if ((${#packages[@]} == 0)); then
        return 0
    fi
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    if ((!install)); then
        say "missing; to install it: apt-get install --no-install-recommends ${packages[*]}"
        exit 1
    fi
    install_packages "${packages[@]}"

    packages=()
    for group in "${groups[@]}"; do
        missing_of "$group"
    done
    ((${#packages[@]} == 0)) || fail "still missing after the installation: ${packages[*]}"
}

# Appends the packages that group $1 lacks to `packages`, and says why.
missing_of() {
    local need group check brings
    for need in "${NEEDS[@]}"; do
        IFS='|' read -r group check brings <<<"$need"
        group=${group// /} check=${check// /}
        if [[ $group != "$1" ]] || is_there "$check"; then
            continue
        fi
        say "$1 needs $(describe "$check")"
        read -ra brings <<<"$brings"
        packages+=("${brings[@]}")
    done
}

is_there() {
    case $1 in
        cc_links) echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null ;;
        cargo_is_new) cargo_is_new ;;
        # Without them cargo cannot fetch crates.
        ca_certificates) [[ -e ${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} ]] ;;
        # Debian has another arping, with other options.
        arping_iputils) [[ $(arping -V 2>&1) == *iputils* ]] ;;
        perl_times) perl -MTime::HiRes -e 1 2>/dev/null ;;
        cargo-*) cargo "${1#cargo-}" --version >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

describe() {
    case $1 in
        cc_links) echo "a C compiler that links (cc)" ;;
        cargo_is_new) echo "cargo $(minimum_rust) or later (found: $(cargo --version 2>/dev/null || echo none))" ;;
        ca_certificates) echo "CA certificates (/etc/ssl/certs/ca-certificates.crt)" ;;
        arping_iputils) echo "arping (the one of iputils)" ;;
        perl_times) echo "Perl's Time::HiRes" ;;
        *) echo "$1" ;;
    esac
}

minimum_rust() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml
}

cargo_is_new() {
    local have
    have=$(cargo --version 2>/dev/null | awk '{ print $2 }')
    [[ -n $have && $(printf '%s\n' "$(minimum_rust)" "$have" | sort -V | head -n 1) == "$(minimum_rust)" ]]
}

install_packages() {
    command -v apt-get >/dev/null || fail "no apt-get here; install what Debian calls: $*"
    if [[ " $* " == *" cargo-web "* ]] && command -v cargo >/dev/null &&
        ! dpkg -s cargo-web >/dev/null 2>&1; then
        fail "the installed $(cargo --version) is older than $(minimum_rust): update it (rustup update stable), or remove it so that Debian's cargo-web can be installed"
    fi
    local package absent=()
    for package in "$@"; do
        has_candidate "$package" || absent+=("$package")
    done
    if ((${#absent[@]})); then
        as_root apt-get update -q
        for package in "${absent[@]}"; do
            has_candidate "$package" || fail "this system has no package '$package' that is new enough (Debian 12 has it, with its security suite); $0 --no-install says what it is for"
        done
    fi
    say "installing: $*"
    as_root bash -s -- "$@" <<'ROOT'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
# A policy of 101 forbids the packages' scripts to start services.
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
fi
if ! apt-get install -q -y --no-install-recommends "$@"; then
    # The lists may be older than the archive.
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
fi
for package in "$@"; do
    if [[ $package == nginx ]]; then
        echo "install-deps: nginx was installed for its program only: its service stays off" >&2
        update-rc.d nginx disable >/dev/null 2>&1 || true
    fi
done
ROOT
}

# Whether the lists of packages have this one, and for cargo-web also new enough.
has_candidate() {
    local candidate
    candidate=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p')
    case $1 in
        cargo-web) dpkg --compare-versions "${candidate/(none)/}" ge "$(minimum_rust)" ;;
        *) [[ -n $candidate && $candidate != "(none)" ]] ;;
    esac
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        say "this needs root: sudo $1"
        sudo "$@"
    else
        fail "this needs root and there is no sudo; as root, run: $0"
    fi
}

say() {
    printf 'install-deps: %s\n' "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

main "$@"
