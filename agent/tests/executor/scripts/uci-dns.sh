#!/bin/sh
# Lists of resolvers.
set -eu
change uci add_list 'network.lan.dns=192.0.2.54'
change uci del_list 'network.lan.dns=192.0.2.53'
change uci set 'dhcp.lan.leasetime=1h'
