#!/usr/bin/env bash
# `vipr doctor` over IPv6, on two segments.
set -euo pipefail
# shellcheck disable=SC2034 # for the scenario
DOCTOR_FAMILY=6
# shellcheck source=tests/namespaces/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/doctor.sh"
