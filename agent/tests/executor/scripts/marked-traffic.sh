#!/bin/sh
# Sends marked packets over a table of their own.
set -eu
change route add default via 192.0.2.9 dev wan table 300
change rule add priority 800 fwmark 16 lookup 300
change rule add priority 801 iif lan fwmark 17 lookup 300
