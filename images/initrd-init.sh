#!/bin/busybox sh
# First process of the guest: loads the modules that its devices need, mounts the root disk and
# hands over to the init in it. Runs under busybox, whose applets need no PATH.
#
# Every process costs milliseconds where the CPU is emulated, so one mount does all mounts, one
# modprobe loads all modules, and the rest is the shell itself. @MODULES@ is filled in by the build.

# Say why the boot ended where the host reads it, then end the VM: nobody can log in here.
fail() {
	echo "wrenn-initrd: $*; rebooting"
	exec /bin/busybox reboot -f
}

/bin/busybox mount -a -T /early.fstab || fail "can't mount /proc and /dev"
modprobe -a @MODULES@ || fail "can't load the kernel modules"

root='' access=rw target=/usr/lib/wrenn/init
read -r cmdline </proc/cmdline
for word in $cmdline; do
	case $word in
	root=*) root=${word#root=} ;;
	ro | rw) access=$word ;;
	init=*) target=${word#init=} ;;
	esac
done
[ -n "$root" ] || fail "no root= on the kernel's command line"

# The disk is there as soon as its driver is; only slow hosts take this loop (5 s at most).
tries=0
while [ ! -b "$root" ] && [ "$tries" -lt 100 ]; do
	usleep 50000
	tries=$((tries + 1))
done
[ -b "$root" ] || fail "the root disk $root did not appear"

echo "$root /root ext4 $access 0 0
/proc /root/proc none move 0 0
/dev /root/dev none move 0 0" >/late.fstab
mount -a -T /late.fstab || fail "can't mount $root"
[ -e "/root$target" ] || fail "there is no $target on $root"
exec /bin/busybox switch_root /root "$target" || fail "can't switch to $root"
