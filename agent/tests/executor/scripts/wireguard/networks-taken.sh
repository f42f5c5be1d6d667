#!/bin/sh
# One peer takes networks that were the other one's.
set -eu
change wireguard set tunnel peer IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI= allowed-ips 10.7.0.3/32,10.70.0.0/16
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= allowed-ips 10.7.0.2/32,10.7.0.3/32
