#!/usr/bin/env bash
# `vipr doctor` where clients, the router and real servers are all on one segment.
set -euo pipefail
# shellcheck disable=SC2034 # for the scenario
DOCTOR_TOPOLOGY=one-arm
# shellcheck source=tests/namespaces/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/doctor.sh"
