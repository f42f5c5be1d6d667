#!/bin/sh
# Holds a gateway to its hardware address.
set -eu
change neighbour replace 192.0.2.1 lladdr 02:00:00:00:01:01 dev wan
