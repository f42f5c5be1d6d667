#!/bin/sh
# A peer comes and goes.
set -eu
change wireguard set tunnel peer MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM= endpoint 198.51.100.30 port 51820 allowed-ips 10.80.0.0/16
change wireguard set tunnel peer MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM= allowed-ips 10.80.0.0/16,10.81.0.0/16
change wireguard set tunnel peer MzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzMzM= remove
