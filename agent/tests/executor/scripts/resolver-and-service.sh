#!/bin/sh
# A file, and the service that reads it.
set -eu
change file write /etc/resolv.conf <<'END'
nameserver 192.0.2.54
nameserver 192.0.2.53
search lan
END
change service reload dnsmasq
