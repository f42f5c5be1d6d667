#!/bin/sh
# Switches on a link that is expected to be up.
set -eu
change link set spare up
