#!/bin/sh
# Removes a route that swallows packets.
set -eu
change route delete 10.66.0.0/16
