#!/bin/sh
# Switches forwarding on.
set -eu
change sysctl "net/ipv4/ip_forward=1"
