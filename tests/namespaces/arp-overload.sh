#!/usr/bin/env bash
# More comes in than the router can forward: every question for the VIP is answered all the same. The
# twin, a router that may not look at its queue a second time, loses some.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"

"$LAB_ROOT/vm/bench-arp-load.sh" 2 overload | tee "$LAB_DIR/../overload"

# Of a row of it, the questions asked and answered, and the answers that were one too many.
questions() {
    awk -v row="$1" 'index($0, row) == 1 { sub(row, ""); print $2, $3, $4 }' "$LAB_DIR/../overload"
}

read -r asked answered more < <(questions "as fast as it goes")
lab_expect "questions that were answered" "$answered" "$asked"
# What comes both ways, by the queue and past it, is answered once, but where the second look begins.
lab_expect "answered twice, at most 1 in 50 ($more)" "$((more * 50 <= answered))" 1
read -r asked answered _ < <(questions "without a second look")
lab_expect "without a second look some were not ($answered of $asked)" "$((answered < asked))" 1
