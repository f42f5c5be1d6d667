#!/bin/sh
# The tunnel goes down, dials elsewhere, and comes up.
set -eu
change link set tunnel down
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= endpoint 198.51.100.9 port 51820
change link set tunnel up
