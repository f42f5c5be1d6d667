#!/bin/sh
# Another IPv6 network on the LAN.
set -eu
change address add 2001:db8:3::1/64 dev lan
change route delete 2001:db8:99::/48
change address delete 2001:db8:2::1/64 dev lan
