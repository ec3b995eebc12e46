#!/usr/bin/env bash
# vipr against the kernel's IPVS, in instructions a packet. `make bench-ipvs` runs it.
#
#     vm/bench-ipvs.sh BENCHMARK
#
# Boots a virtual machine with one processor whose clock counts instructions (QEMU's -icount), with
# ip_vs and BENCHMARK, a static build of benches/ipvs.rs, in it, and prints what that prints. Needs
# neither root nor hardware virtualisation.
#
# Twice: QEMU counts every byte that a string instruction (rep stosb, rep movsb) clears or copies,
# where a processor counts one instruction. The kernel clears every new packet buffer, 750 bytes, that
# way if it may. So there is a second processor without "enhanced rep movsb", on which the kernel has
# loops of ordinary instructions for it, and nothing counts for more than it is.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly SECONDS_MAX=${BENCH_IPVS_SECONDS_MAX:-900}
readonly LAB=target/lab

main() {
    (($# == 1)) || fail "expected one argument, the benchmark; make bench-ipvs gives it"
    local work kernel processor
    work=$(mktemp -d /tmp/vipr-bench.XXXXXX)
    # shellcheck disable=SC2064 # the directory is known now
    trap "rm -rf '$work'" EXIT
    cat >"$work/run" <<'RUN'
#!/bin/sh
# The machine is ours alone: no namespace of its own.
export VIPR_BENCH_INSIDE=1
/bin/bench --bench && echo "bench-ipvs: done"
RUN
    chmod +x "$work/run"
    kernel=$(cargo run --quiet --locked --package vipr-lab -- guest \
        --modules veth,bridge,tun,ip_vs,ip_vs_rr \
        --program iproute2=bin/ip --program iproute2=sbin/bridge \
        --program ipvsadm=sbin/ipvsadm \
        --add "bin/bench=$1" --run "$work/run" --output "$LAB/bench-ipvs.cpio")
    for processor in max max,-erms,-fsrm; do
        measure "$work/console" "$kernel" "$processor"
    done
}

# Boots the machine with the processor $3, the kernel $2 and the console $1.
measure() {
    local console=$1 kernel=$2 processor=$3
    printf '\n== -cpu %s\n' "$processor"
    timeout "$SECONDS_MAX" qemu-system-x86_64 -nodefaults -no-user-config -no-reboot \
        -display none -machine q35 -accel tcg -cpu "$processor" -smp 1 -m 512 \
        -icount shift=0,sleep=off \
        -kernel "$kernel" -initrd "$LAB/bench-ipvs.cpio" \
        -append "console=ttyS0 panic=-1 quiet no_timer_check lab.name=bench" \
        -serial "file:$console" </dev/null || true
    tr -d '\r' <"$console" | grep -E '^\||SKIPPED' || true
    if ! grep -q 'bench-ipvs: done' "$console"; then
        tail -n 40 "$console" >&2
        fail "the machine did not come to its end"
    fi
}

fail() {
    printf 'bench-ipvs: %s\n' "$*" >&2
    exit 1
}

main "$@"
