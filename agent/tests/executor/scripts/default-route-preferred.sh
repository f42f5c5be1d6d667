#!/bin/sh
# Lets another gateway count before the present one.
set -eu
change route add default via 10.1.0.250 dev lan
