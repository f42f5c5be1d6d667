#!/bin/sh
# Takes packets that come another way than they would go.
set -eu
change sysctl "net/ipv4/conf/wan/rp_filter=2"
