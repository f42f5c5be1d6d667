#!/bin/sh
# Lets the default route over the expected gateway count.
set -eu
change route replace default via 192.0.2.9 dev wan metric 100
