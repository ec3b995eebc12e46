# Sourced after lab.sh by those that ask `vipr doctor`: what it finds, and its remedies as it prints them.
# shellcheck shell=bash

CONFIG=$LAB_DIR/vipr.toml

# $CONFIG, put right or wrong by sed, in force.
configured() {
    sed -i "$@" "$CONFIG"
    lab_vipr reload >/dev/null
}

# Runs the doctor; its findings are in $LAB_DIR/doctor.json.
doctor() {
    local status=0
    lab_vipr doctor --json "$@" >"$LAB_DIR/doctor.json" || status=$?
    echo "$status"
}
faults() {
    jq -r '[.real_servers[] | .real_server as $rs | .findings[] | select(.verdict == "fault") |
        "\($rs): \(.item): \(.text)"] + [.strangers[].text] | join("; ")' "$LAB_DIR/doctor.json"
}
remedies() {
    jq -r '.real_servers[].findings[] | select(.verdict == "fault") | .remedy[]' "$LAB_DIR/doctor.json"
}

# Expects no fault: `healthy WHAT [ARGUMENT OF THE DOCTOR…]`.
healthy() {
    local status
    status=$(doctor "${@:2}")
    lab_expect "$TOPOLOGY: $1: faults" "$(faults)" ""
    lab_expect "$TOPOLOGY: $1: exit status" "$status" 0
}

is_healthy() {
    [[ $(doctor) == 0 ]]
}

# Expects one fault with this text, and this in a remedy, of rs1 or of those named:
# `sick WHAT TEXT REMEDY [REAL_SERVERS]`.
sick() {
    local status found
    status=$(doctor)
    found=$(faults)
    [[ $found == *"$2"* ]] || lab_fail "$TOPOLOGY: $1: '$found' lacks '$2'"
    [[ $(remedies) == *"$3"* ]] || lab_fail "$TOPOLOGY: $1: remedies '$(remedies)' lack '$3'"
    lab_expect "$TOPOLOGY: $1: exit status; $found" "$status" 1
    lab_expect "$TOPOLOGY: $1: faults, a real server each" "$(jq -r '[.real_servers[] |
        .real_server as $rs | .findings[] | select(.verdict == "fault") | $rs] | join(" ")' \
        "$LAB_DIR/doctor.json")" "${4-rs1}"
}

# Carries out the remedies that are commands on a real server, with what they leave open filled in: the
# device, by which requests come, and digits of a MAC.
remedy() {
    local on=$1 commands line
    commands=$(remedies | sort -u | sed -nE -e 's/^(on it|give one of the two a MAC of its own): //' \
        -e "s/DEVICE/$(lab_request_card)/; s/XX/22/g" \
        -e '/^(sysctl|for f in|ip (address|link)|ip6?tables) /p')
    [[ $commands ]] || lab_fail "no command among the remedies '$(remedies)'"
    while read -r line; do
        echo "   on $on: $line"
        lab_in "$on" sh -c "$line" >/dev/null
    done <<<"$commands"
}
