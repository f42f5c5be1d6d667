#!/bin/sh
# Sends packets no larger than the path carries.
set -eu
change link set wan mtu 1400
