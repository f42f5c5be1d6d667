#!/bin/sh
# Takes both links down and up.
set -eu
change link set wan down
change link set lan down
change link set lan up
change link set wan up
