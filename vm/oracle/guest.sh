#!/bin/bash
# The first and only program of the guest (see run.sh): modules, then the test that records.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mkdir -p /run/modules/lib /run/records
ln -s /usr/lib/uml/modules /run/modules/lib/modules
mount -t hostfs records /run/records -o "$ORACLE_RUN"
echo "oracle: kernel $(uname -r)"

for module in tun ip_vs ip_vs_{rr,wrr,lc,wlc,sed,nq,sh,dh,mh,fo,ovf,lblc,lblcr}; do
    modprobe -d /run/modules "$module" || echo "oracle: no module $module"
done

if ORACLE_RUN=/run/records "$ORACLE_PROGRAM" --ignored --exact in_the_guest --nocapture; then
    echo "oracle: the guest is done"
fi
echo o >/proc/sysrq-trigger
sleep 10
