#!/bin/sh
# Switches IPv6 off and on everywhere.
set -eu
change sysctl "net.ipv6.conf.all.disable_ipv6=1"
change sysctl "net.ipv6.conf.all.disable_ipv6=0"
