#!/bin/sh
# The LAN in the configuration and in the kernel.
set -eu
change uci set 'network.lan.ipaddr=10.7.0.1'
change address add 10.7.0.1/24 dev lan
change uci reload network
