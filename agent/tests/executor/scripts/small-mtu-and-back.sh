#!/bin/sh
# Goes below what IPv6 needs.
set -eu
change link set lan mtu 1000
change link set lan mtu 1500
