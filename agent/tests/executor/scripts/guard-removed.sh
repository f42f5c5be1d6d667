#!/bin/sh
# No filter.
set -eu
change nft delete-table inet guard
