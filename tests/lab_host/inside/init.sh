#!/bin/sh
# PID 1 of the lab, from this run's order: makes it the machine that the tests expect, runs the
# command of the order, hands out what came of it, and ends the machine.
#
# The kernel's messages go to the serial console, the command's output to one port, and at the end
# a tar with results (exit-code, and whatever the command left in /lab/results) to another.
export PATH=/lab/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb
export WRENN_LAB=1 WRENN_TEST_DATA_DIR=/lab/data WRENN_DATA_DIR=/lab/data
ports=/dev/virtio-ports

say() {
	read -r up _ </proc/uptime
	echo "lab: $up s: $*" >/dev/console
}

say "unpacked"
mkdir -p /dev/pts /dev/shm /lab/results /lab/data
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ln -sf /proc/self/fd /dev/fd
hostname lab
ip link set lo up

/lib/systemd/systemd-udevd --daemon
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add
# What an installed Debian loads when its device node is opened (kmod's static nodes).
modprobe --all loop tun dm_mod dm_snapshot veth nf_tables
udevadm settle --timeout=60

say "devices are there"

mount /dev/vdb /lab/data
python3 /lab/order/data.py /lab/data
cp /lab/shim/*.so /lab/tree/src/wrennd/qemu_vmm/
[ ! -e /lab/order/firecracker ] || export WRENN_LAB_FIRECRACKER=/lab/order/firecracker
cd /lab/tree || exit
say "ready"

if [ -e /lab/order/shell ]; then
	read -r rows columns TERM </lab/order/shell
	export TERM
	stty -F /dev/hvc0 rows "$rows" cols "$columns"
	setsid --ctty --wait bash -l </dev/hvc0 >/dev/hvc0 2>&1 &
else
	setsid bash /lab/order/command </dev/null >"$ports/lab.output" 2>&1 &
fi
# Not in the foreground: `wait` also reaps what others leave to PID 1.
wait $!
echo $? >/lab/results/exit-code
say "done"
dmesg >/lab/results/dmesg
tar -cf "$ports/lab.results" -C /lab/results .
busybox reboot -f
