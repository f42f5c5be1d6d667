#!/bin/sh
# Asks a rule later.
set -eu
change rule add priority 1100 from 10.1.0.0/24 lookup 100
change rule delete priority 1000 from 10.1.0.0/24 lookup 100
