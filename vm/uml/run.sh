#!/usr/bin/env bash
# A scenario of tests/namespaces in a kernel of its own: what this machine's kernel lacks (SCTP),
# Debian's User-Mode Linux has.
#
#     vm/uml/run.sh tests/namespaces/sctp.sh
#
# The guest has this machine's files, read-only, for its root. Neither root nor /dev/kvm is needed.
# Prints what the scenario prints and gives its exit status.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly GUEST_SECONDS_MAX=${UML_SECONDS_MAX:-380}
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

main() {
    local scenario=${1?which scenario} log
    log=$(mktemp /tmp/vipr-uml.XXXXXX)
    # shellcheck disable=SC2064 # the file is known now
    trap "rm -f '$log'" EXIT
    timeout "$GUEST_SECONDS_MAX" linux.uml mem=512M \
        rootfstype=hostfs root=/dev/root ro init="$PWD/vm/uml/guest.sh" \
        con=null con0=null,fd:1 con1=null,fd:1 console=tty0 quiet \
        SCENARIO="$(realpath "$scenario")" VIPR="${VIPR:-$PWD/target/release/vipr}" \
        >"$log" 2>&1 </dev/null || true
    cat "$log"
    grep -q '^guest: the scenario is done' "$log"
}

main "$@"
