#!/bin/sh
# One of each kind.
set -eu
change file write /etc/resolv.conf <<'END'
nameserver 192.0.2.54
nameserver 192.0.2.53
search lan
END
change link set lan mtu 1400
change address add 10.2.0.1/24 dev lan
change rule add priority 900 iif lan lookup 100
change route add 172.16.0.0/12 via 10.1.0.7 dev lan
change neighbour replace 10.1.0.9 lladdr 02:00:00:00:00:09 dev lan
change sysctl "net.ipv4.conf.lan.accept_redirects=0"
change nft replace-table inet guard <<'END'
table inet guard {
	chain in {
		type filter hook input priority filter; policy accept;
		tcp dport { 22, 53, 67 } accept
		ct state established,related accept
		iifname "wan" drop
	}
}
END
change uci set 'network.lan.mtu=1400'
change uci reload network
change service restart dnsmasq
