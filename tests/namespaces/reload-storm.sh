#!/usr/bin/env bash
# Ten changes of the configuration a second, some of them broken, and no request notices: the short
# version of `make bench-reload`.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../../vm/bench-reload.sh" 60
