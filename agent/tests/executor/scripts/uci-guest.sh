#!/bin/sh
# A section that was not there.
set -eu
change uci set 'network.guest=interface'
change uci set 'network.guest.proto=static'
change uci set 'network.guest.ipaddr=10.8.1.1'
change uci reload network
