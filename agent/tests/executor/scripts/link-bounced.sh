#!/bin/sh
# Takes a link down and up.
set -eu
change link set lan down
change link set lan up
