#!/bin/sh
# Puts the default route back.
set -eu
change route add default via 192.0.2.1 dev wan
