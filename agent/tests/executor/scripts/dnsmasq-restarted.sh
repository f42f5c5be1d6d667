#!/bin/sh
# Restarts the resolver.
set -eu
change service restart dnsmasq
