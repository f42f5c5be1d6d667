#!/bin/sh
# Moves the uplink to another network.
set -eu
change address add 198.51.100.2/24 dev wan
change route replace default via 198.51.100.1 dev wan metric 100
change address delete 192.0.2.3/24 dev wan
change address delete 192.0.2.2/24 dev wan
