#!/bin/sh
# A section without a name, and one with.
set -eu
change uci delete 'firewall.@rule[0]'
change uci delete 'network.wan'
change uci reload firewall
