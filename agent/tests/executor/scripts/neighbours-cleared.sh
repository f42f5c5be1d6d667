#!/bin/sh
# Removes what a person once pinned.
set -eu
change neighbour delete 10.1.0.77 dev lan
