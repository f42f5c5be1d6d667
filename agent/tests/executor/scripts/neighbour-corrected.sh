#!/bin/sh
# Corrects a wrong entry, and forgets what was learned.
set -eu
change neighbour replace 10.1.0.77 lladdr 02:00:00:00:00:78 dev lan
change neighbour delete 10.1.0.99 dev lan
