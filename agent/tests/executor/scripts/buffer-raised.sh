#!/bin/sh
# Makes room for a bound of the kernel.
set -eu
change sysctl "net.ipv4.tcp_rmem=4096 131072 8388608"
