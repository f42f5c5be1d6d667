#!/bin/sh
# One service for another.
set -eu
change service stop dnsmasq
change service start unbound
