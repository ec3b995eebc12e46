#!/usr/bin/env bash
# `vipr doctor` over IPv6, with all on one segment.
set -euo pipefail
# shellcheck disable=SC2034 # for the scenario
DOCTOR_FAMILY=6 DOCTOR_TOPOLOGY=one-arm
# shellcheck source=tests/namespaces/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/doctor.sh"
