#!/bin/sh
# The office has another address; then it answers on another port.
set -eu
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= endpoint 198.51.100.9 port 51820
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= endpoint 198.51.100.9 port 51821 persistent-keepalive 15
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= endpoint 2001:db8:5::9 port 51820 persistent-keepalive 0
