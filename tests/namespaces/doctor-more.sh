#!/usr/bin/env bash
# `vipr doctor`: faults that only two segments have, those of the configuration, those of UDP; and
# the doctor where no router runs.
set -euo pipefail
# shellcheck disable=SC2034 # for the scenario
DOCTOR_MORE=1
# shellcheck source=tests/namespaces/doctor.sh
source "$(dirname "${BASH_SOURCE[0]}")/doctor.sh"
