#!/bin/sh
# A peer with thousands of networks is left with one, and is removed.
set -eu
change wireguard set tunnel peer REREREREREREREREREREREREREREREREREREREREREQ= allowed-ips 10.200.0.0/16
change wireguard set tunnel peer REREREREREREREREREREREREREREREREREREREREREQ= remove
