#!/bin/sh
# The office has a new key: the old peer goes, the new one takes its networks.
set -eu
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= remove
change wireguard set tunnel peer MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM= endpoint 192.0.2.1 port 51820 persistent-keepalive 25 allowed-ips 10.7.0.2/32,10.70.0.0/16,2001:db8:7::/48
