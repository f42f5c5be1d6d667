#!/bin/sh
# Takes router advertisements though it forwards.
set -eu
change sysctl "net/ipv6/conf/wan/accept_ra=2"
