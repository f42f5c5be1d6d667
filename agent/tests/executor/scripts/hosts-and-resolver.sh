#!/bin/sh
# Both files of names.
set -eu
change file write /etc/hosts <<'END'
127.0.0.1 localhost
192.0.2.80 portal
END
change file write /etc/resolv.conf <<'END'
nameserver 192.0.2.54
nameserver 192.0.2.53
search lan
END
change file delete /etc/hosts
