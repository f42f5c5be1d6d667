#!/bin/sh
# What is secret.
set -eu
change uci set 'network.wg0.private_key=cGxhbnRlZC1zZWNyZXQtbmV3LWtleS1vZi10aGUtdGVzdA=='
change service restart network
