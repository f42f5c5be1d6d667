#!/bin/sh
# A peer that was waited for is dialled.
set -eu
change wireguard set tunnel peer IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI= endpoint 198.51.100.20 port 40000
change wireguard set tunnel peer IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI= persistent-keepalive 25
