#!/bin/sh
# Switches IPv6 off on the uplink.
set -eu
change sysctl "net.ipv6.conf.wan.disable_ipv6=1"
