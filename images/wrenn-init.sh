#!/usr/lib/wrenn/busybox sh
# PID 1 of the guest: mounts, hostname, network, resolvers, then the guest agent (envd). It reaps
# what is orphaned, starts envd again when it dies, and ends the VM by a reboot when it is told to.
#
# It needs nothing of the image: its tools are the busybox beside it. Any POSIX shell can run it
# (busybox sh, dash, bash). Each process costs milliseconds where the CPU is emulated, so the shell
# does itself what it can. What it prints goes to the console, which the host reads: lines begin
# with "wrenn-init: "; "started" and "envd started" are what a benchmark looks for.

wrenn=/usr/lib/wrenn
python=$wrenn/python
# Its own shell runs busybox's tools without starting a program; any other shell has to.
busybox=$wrenn/busybox
[ -z "$BB_ASH_VERSION" ] || busybox=''

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
unset TERM root access target cmdline word tries 2>/dev/null

say() {
	echo "wrenn-init: $*"
}

# A guest ends by a reboot, never by power-off: a VMM outlives the latter.
end() {
	say "$*; rebooting"
	$busybox sync
	$busybox reboot -f
	# Only reached where that call is forbidden: the kernel's emergency key does the same.
	echo b >/proc/sysrq-trigger
}

mount_all() {
	# The initrd hands over /proc and /dev; a kernel that mounted the root itself does not.
	[ -e /proc/self ] || $busybox mount -t proc -o nosuid,nodev,noexec proc /proc
	[ -c /dev/null ] || $busybox mount -t devtmpfs -o nosuid,noexec,mode=755 dev /dev
	$busybox mkdir -p /dev/pts /dev/shm
	# The file that fstab puts over the kernel's own, for envd to rewrite.
	read -r boot_id </proc/sys/kernel/random/boot_id
	echo "$boot_id" >$wrenn/boot_id
	$busybox mount -a -T $wrenn/fstab || say "warning: not everything could be mounted"
	[ -e /dev/fd ] || $busybox ln -s /proc/self/fd /dev/fd
}

# Sets address, gateway, dns and hostname from wrenn.NAME= on the kernel's command line.
read_command_line() {
	address='' gateway='' dns='' hostname=''
	read -r cmdline </proc/cmdline
	for word in $cmdline; do
		case $word in
		wrenn.ip=*) address=${word#*=} ;;
		wrenn.gw=*) gateway=${word#*=} ;;
		wrenn.dns=*) dns=${word#*=} ;;
		wrenn.hostname=*) hostname=${word#*=} ;;
		esac
	done
}

set_hostname() {
	[ -n "$hostname" ] || return 0
	echo "$hostname" >/proc/sys/kernel/hostname
	[ -e /etc/hosts ] || echo "127.0.0.1 localhost" >/etc/hosts
	# sudo and others look their own host up.
	while read -r ip names; do
		case " $names " in *" $hostname "*) [ "${ip#\#}" != "$ip" ] || return 0 ;; esac
	done </etc/hosts
	echo "127.0.1.1 $hostname" >>/etc/hosts
}

set_network() {
	$busybox ifconfig lo up
	[ -n "$address" ] || return 0
	if [ ! -e /sys/class/net/eth0 ]; then
		say "warning: there is no eth0, so no network"
		return 0
	fi
	netmask "${address#*/}"
	$busybox ifconfig eth0 "${address%/*}" netmask "$mask" up ||
		say "warning: eth0 did not take the address $address"
	[ -z "$gateway" ] || $busybox route add default gw "$gateway" ||
		say "warning: no route by $gateway"
}

# Leaves the dotted netmask of a prefix length in $mask: ifconfig does in one process what ip does in
# two, but knows no prefixes.
netmask() {
	mask='' bits=$1
	for _ in octet octet octet octet; do
		part=0
		for value in 128 64 32 16 8 4 2 1; do
			[ "$bits" -gt 0 ] || break
			part=$((part + value)) bits=$((bits - 1))
		done
		mask=$mask${mask:+.}$part
	done
}

set_resolvers() {
	[ -n "$dns" ] || return 0
	# Often a link to a resolver's own file, which nothing here writes.
	[ ! -L /etc/resolv.conf ] || $busybox rm -f /etc/resolv.conf
	rest=$dns,
	while [ -n "$rest" ]; do
		echo "nameserver ${rest%%,*}"
		rest=${rest#*,}
	done >/etc/resolv.conf
}

# Leaves envd's pid in $envd. It shall be the last that a guest without memory loses; what it starts
# for users sets this back.
start_envd() {
	(
		echo -900 >/proc/self/oom_score_adj
		# Not "python3 envd.pyz": that imports runpy, which takes longer than the agent itself.
		exec $python/ld.so --library-path $python/lib $python/bin/python3 -I -S -B -X utf8 -c \
			"import sys; sys.path.insert(0, '$wrenn/envd.pyz')
from wrennd.envd.__main__ import main; sys.exit(main(sys.argv[1:]))" \
			--port 49983 --address 0.0.0.0
	) &
	envd=$!
	say "envd started"
}

# Runs until envd dies, reaping every orphan on the way. A signal ends `wait` early (status > 128),
# so ask whether envd is still there.
attend_envd() {
	while kill -0 "$envd" 2>/dev/null; do
		wait "$envd"
		status=$?
	done
}

say "started"
trap 'end "power button"' PWR
trap 'end "ctrl-alt-del"' INT
trap '' HUP TERM
mount_all
# The default reboots at once, without writing back what is cached; 0 sends SIGINT here instead.
echo 0 >/proc/sys/kernel/ctrl-alt-del
read_command_line
set_hostname
set_network
set_resolvers

starts=0 status=0
while [ "$starts" -lt 4 ]; do
	start_envd
	starts=$((starts + 1))
	attend_envd
	say "envd ended with status $status"
done
end "envd can't be kept running"
