#!/bin/sh
# The whole way over to the other uplink.
set -eu
change route replace default via 10.1.0.250 dev lan metric 100
change rule add priority 950 iif lan lookup 254
change nft replace-table ip other <<'END'
table ip other {
	chain out {
		type nat hook postrouting priority srcnat; policy accept;
		oifname { "wan", "spare" } masquerade
	}
}
END
change sysctl "net.ipv4.ip_forward=1"
change file write /etc/resolv.conf <<'END'
nameserver 192.0.2.54
nameserver 192.0.2.53
search lan
END
change service reload dnsmasq
change link set wan down
