#!/bin/sh
# Keeps the second default route for spare, with a higher metric.
set -eu
change route add default via 192.0.2.1 dev wan metric 1024
change route delete default via 192.0.2.1 dev wan metric 100
