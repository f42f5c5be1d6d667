#!/bin/sh
# Gives the link the MTU back that it had before.
set -eu
change link set spare mtu 1500
