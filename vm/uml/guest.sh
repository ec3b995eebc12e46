#!/bin/bash
# The first and only program of the guest (see run.sh): modules, then the scenario.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /var/tmp
# Bash's process substitutions name it.
[[ -e /dev/fd ]] || ln -s /proc/self/fd /dev/fd
mkdir -p /run/modules/lib
ln -s /usr/lib/uml/modules /run/modules/lib/modules
echo "guest: kernel $(uname -r)"

# SCTP signs its cookies; what for, the kernel would look for in another place.
for module in tun bridge veth md5 hmac sctp; do
    modprobe -d /run/modules "$module" || echo "guest: no module $module"
done

# A system call costs many times what it costs elsewhere.
export LAB_PATIENCE=6
if "${VIPR_LAB:-${BASH_SOURCE[0]%/*}/../lab.sh}" run "$SCENARIO"; then
    echo "guest: the scenario is done"
fi
echo o >/proc/sysrq-trigger
sleep 10
