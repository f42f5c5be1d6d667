#!/bin/sh
# One table changed twice.
set -eu
change nft delete-table inet guard
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
change nft replace-table inet guard <<'END'
table inet guard {
	chain in {
		type filter hook input priority filter; policy accept;
		tcp dport { 22, 67 } accept
		ct state established,related accept
		iifname "wan" drop
	}
}
END
