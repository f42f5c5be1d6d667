#!/bin/sh
# Puts the IPv6 default route back.
set -eu
change route add default6 via 2001:db8:1::1 dev wan
