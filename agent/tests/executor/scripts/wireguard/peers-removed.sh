#!/bin/sh
# All peers go.
set -eu
change wireguard set tunnel peer REREREREREREREREREREREREREREREREREREREREREQ= remove
change wireguard set tunnel peer IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI= remove
change wireguard set tunnel peer ERERERERERERERERERERERERERERERERERERERERERE= remove
