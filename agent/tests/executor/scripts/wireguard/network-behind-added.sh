#!/bin/sh
# Another network behind the office, with a route and an MTU that fits.
set -eu
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= allowed-ips 10.7.0.2/32,10.70.0.0/16,10.90.0.0/16,2001:db8:7::/48
change route add 10.90.0.0/16 dev tunnel
change link set tunnel mtu 1380
