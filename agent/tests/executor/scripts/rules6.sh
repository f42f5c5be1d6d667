#!/bin/sh
# Rules of IPv6.
set -eu
change rule add priority 700 oif wan ipv6 lookup 254
change rule add priority 701 from 2001:db8:2::/64 lookup 100
