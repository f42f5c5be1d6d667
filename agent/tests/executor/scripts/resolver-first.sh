#!/bin/sh
# Puts the resolver that answers before all others.
set -eu
change file write /etc/resolv.conf <<'END'
nameserver 192.0.2.54
nameserver 192.0.2.53
search lan
END
