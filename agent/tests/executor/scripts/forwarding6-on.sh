#!/bin/sh
# Switches IPv6 forwarding on.
set -eu
change sysctl "net/ipv6/conf/all/forwarding=1"
