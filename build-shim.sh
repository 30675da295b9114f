#!/bin/sh
# atomically build
set -e
d=$(dirname "$0")/src/wrennd/qemu_vmm
gcc -shared -fPIC -O2 -Wall -Wextra -Werror -fvisibility=hidden -o $d/.shim.tmp $d/ram_shim.c -ldl
mv $d/.shim.tmp $d/_ram_shim.cpython-311-x86_64-linux-gnu.so
