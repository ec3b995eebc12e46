#!/usr/bin/env bash
# vipr against the kernel's IPVS, on the same frames: prints a table, fails if they differ.
#
#     vm/oracle/run.sh [--record] [SCENARIO...]
#
# Boots Debian's User-Mode Linux with this machine's files (read-only) for its root, in which the
# test program offers its traces to ip_vs; then offers them to vipr's core and compares. With
# --record what the kernel did becomes tests/data/oracle, which `make test` compares with. Scenarios
# are all of tests/oracle/scenarios.rs, or those that are named.
# Neither root nor /dev/kvm is needed, nor any network device of this machine.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly GUEST_SECONDS_MAX=900
readonly DATA=tests/data/oracle

main() {
    local record=0 program run
    case ${1-} in
        --record) record=1 && shift ;;
        -*) fail "unknown argument '$1': expected --record" ;;
    esac
    # By commas: the guest's command line is made of words.
    ORACLE_ONLY=$(IFS=, && echo "$*")
    export ORACLE_ONLY
    program=$(test_program)
    run=$(mktemp -d /tmp/vipr-oracle.XXXXXX)
    # shellcheck disable=SC2064 # the directory is known now
    trap "rm -rf '$run'" EXIT

    boot "$program" "$run"
    if ((record)); then
        mkdir -p "$DATA"
        (($#)) || rm -f "$DATA"/*.txt
        cp "$run"/*.txt "$DATA"
        echo "oracle: recorded into $DATA: $(du -sh --apparent-size "$DATA" | cut -f 1)"
    fi
    ORACLE_RUN=$run "$program" --ignored --exact print_the_table --nocapture --quiet
}

# Builds the test program; its path.
test_program() {
    cargo test --locked --test oracle --no-run --message-format=json |
        jq -r 'select(.target.name == "oracle" and .executable) | .executable'
}

# Runs program $1 in the guest, which leaves its records in directory $2.
boot() {
    local log=$2/console
    timeout "$GUEST_SECONDS_MAX" linux.uml mem=256M \
        rootfstype=hostfs root=/dev/root ro init="$PWD/vm/oracle/guest.sh" \
        con=null con0=null,fd:1 con1=null,fd:1 console=tty0 quiet \
        ORACLE_PROGRAM="$1" ORACLE_RUN="$2" ORACLE_ONLY="$ORACLE_ONLY" >"$log" 2>&1 </dev/null || true
    if ! grep -q '^oracle: the guest is done' "$log"; then
        tail -n 40 "$log" >&2
        fail "the guest did not come to its end"
    fi
    grep -E '^(oracle|[a-z0-9-]+): [^R]' "$log"
}

fail() {
    printf 'oracle: %s\n' "$*" >&2
    exit 1
}

main "$@"
