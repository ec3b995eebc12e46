#!/bin/busybox sh
# The first program of the lab's ordinary machines. It makes the machine usable, and then does what
# the host tells it by the port `lab.agent`: a line with a number and a script in base64 is run, what
# the script prints goes back as NUMBER:LINE, and NUMBER!STATUS when it has ended.

/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp

while read -r module; do
    insmod "/modules/$module.ko" || echo "lab: module $module was not loaded"
done </modules/order

name=$(sed -n 's/.*lab\.name=\([^ ]*\).*/\1/p' /proc/cmdline)
hostname "${name:-guest}"
ip link set lo up
ln -s /proc/self/fd /dev/fd

# A program of its own that takes the machine's place, if it was packed.
if [ -x /etc/lab/run ]; then
    /etc/lab/run
    echo "lab: run ended with status $?"
    poweroff -f
fi

# A shell for a person.
if [ -c /dev/hvc0 ]; then
    (while :; do setsid -c sh -l </dev/hvc0 >/dev/hvc0 2>&1; done) &
fi

port=
for device in /sys/class/virtio-ports/*; do
    [ "$(cat "$device/name" 2>/dev/null)" != lab.agent ] || port=/dev/${device##*/}
done

serve() {
    echo "$2" | base64 -d >"/tmp/script.$1"
    {
        sh "/tmp/script.$1" </dev/null 2>&1
        echo $? >"/tmp/status.$1"
    } | while IFS= read -r line || [ -n "$line" ]; do
        echo "$1:$line" >&3
    done
    echo "$1!$(cat "/tmp/status.$1")" >&3
    rm -f "/tmp/script.$1" "/tmp/status.$1"
}

if [ -n "$port" ]; then
    exec 3<>"$port"
    echo "lab: $name is ready"
    while read -r number script <&3; do
        serve "$number" "$script" &
    done
fi
echo "lab: nobody tells this machine what to do"
poweroff -f
