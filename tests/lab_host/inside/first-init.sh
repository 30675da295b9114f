#!/bin/sh
# First process of the lab: what must lie on its disk. It unpacks what came with this run from the
# third disk, and hands over to the init in that. /proc and /dev are mounted already.
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t sysfs sysfs /sys
tar -xf /dev/vdc -C /lab
exec /lab/order/init
