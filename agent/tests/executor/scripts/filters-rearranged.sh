#!/bin/sh
# A new table, another one changed, a third removed.
set -eu
change nft replace-table ip fresh <<'END'
table ip fresh {
	set s {
		type ipv4_addr
		elements = { 192.0.2.66, 192.0.2.67 }
	}
	chain in {
		type filter hook input priority 10; policy accept;
		ip saddr @s drop
	}
}
END
change nft replace-table ip other <<'END'
table ip other {
	chain out {
		type nat hook postrouting priority srcnat; policy accept;
		oifname { "wan", "spare" } masquerade
	}
}
END
change nft delete-table inet guard
