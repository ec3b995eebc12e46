#!/usr/bin/env bash
# The director on cards of its host, by packet sockets.
set -euo pipefail
# shellcheck source=vm/lab.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../vm/lab.sh"
# shellcheck source=tests/namespaces/support/direct.sh
source "$(dirname "${BASH_SOURCE[0]}")/support/direct.sh"

check_direct packet
