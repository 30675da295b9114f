#!/bin/sh
# First process of `systemd_machine.py`, in new namespaces of every kind: makes this machine's files,
# copied on write, the root of its own, and becomes systemd.
#
#     systemd_machine.sh BASE SHOWN...
#
# BASE: an empty directory. SHOWN: directories to be seen whatever lies over them.
set -eu
base=$1
shift
root=$base/root
mount -t tmpfs -o mode=755 tmpfs "$base"
mkdir "$base/upper" "$base/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$root"
cd "$root"

# As in any container: the kernel's settings are not its to change, but for those of its network.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -o remount,bind,rw proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in null zero full random urandom tty kvm net/tun; do
	[ -e "/dev/$node" ] || continue
	touch "dev/$node"
	mount --bind "/dev/$node" "dev/$node"
done
for shown; do
	mkdir -p "./$shown"
	mount --rbind "$shown" "./$shown"
done

# None of this machine's services, and of systemd's own only the journal.
mount -t tmpfs -o mode=755 tmpfs etc/systemd/system
for wanted in usr/lib/systemd/system/*.wants usr/lib/systemd/system-generators; do
	mount -t tmpfs -o mode=755 tmpfs "$wanted"
done
mkdir etc/systemd/system/sysinit.target.wants
ln -s /usr/lib/systemd/system/systemd-journald.service etc/systemd/system/sysinit.target.wants
rm -rf var/log/journal var/lib/wrenn var/lib/wrenn-server etc/wrenn
sed -i '/^wrenn:/d' etc/passwd etc/group etc/shadow etc/gshadow

pivot_root . .
umount -l .
cd /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
	/lib/systemd/systemd --system --unit=multi-user.target
