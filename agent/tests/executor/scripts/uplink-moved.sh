#!/bin/sh
# Moves the uplink to another network: the second old address goes with the first, or takes its place
# (promote_secondaries).
set -eu
change address add 198.51.100.2/24 dev wan
change route replace default via 198.51.100.1 dev wan metric 100
change address delete 192.0.2.2/24 dev wan
