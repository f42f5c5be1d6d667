#!/bin/sh
# Gives the LAN another network.
set -eu
change address add 10.7.0.1/24 dev lan
change route replace 10.9.0.0/16 via 10.7.0.9 dev lan
change address delete 10.1.0.1/24 dev lan
