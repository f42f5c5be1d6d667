#!/bin/sh
# Sends one network over another uplink.
set -eu
change route add default via 10.1.0.250 dev lan table 200
change rule add priority 900 from 10.5.0.0/24 lookup 200
