//! What a round is to be: drawn from a seed and a number alone, so that it can be drawn again.

use aizen_protocol::package::manifest::Operation;
use serde_json::{Value, json};

/// Numbers that look drawn by lot (splitmix64).
#[derive(Debug)]
pub(super) struct Lots(u64);

impl Lots {
    pub(super) fn new(seed: u64, round: u64) -> Self {
        let mut lots = Self(seed ^ round.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        lots.draw();
        lots
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// Between 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "a part of a time")]
    fn part(&mut self) -> f64 {
        self.below(10_000) as f64 / 10_000.0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// How the life ends if nothing comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// It is confirmed.
    Confirmed,
    /// Nobody confirms it before the deadline.
    Unconfirmed,
    /// The script fails after its last operation.
    Fails,
    /// One of its operations is not granted.
    Denied,
    /// A person wants it back.
    Asked,
    /// The way to the gateway is lost while it waits for its confirmation.
    LinkLost,
}

/// What comes between. Times are parts of such a life, from the request on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Misfortune {
    None,
    /// SIGKILL, and of so many recoveries after it.
    Killed {
        at: f64,
        recoveries: Vec<f64>,
    },
    /// The device restarts.
    Rebooted {
        at: f64,
        recoveries: Vec<f64>,
    },
    /// SIGSTOP until the deadline is over.
    Stopped {
        at: f64,
    },
    /// The file system of the state has only so much left, bytes.
    Full {
        at: f64,
        left: u64,
    },
    /// strace(1) lets one call of the executor fail.
    Refused {
        call: &'static str,
        error: &'static str,
        number: u64,
    },
}

/// One round.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) script: String,
    pub(super) grants: Vec<Operation>,
    /// The script itself may break what the device probes.
    pub(super) rough: bool,
    pub(super) ending: Ending,
    pub(super) misfortune: Misfortune,
    /// Confirmed over the uplink, else on the spot.
    pub(super) uplink: bool,
    /// Somebody else adds a route meanwhile.
    pub(super) stranger: bool,
    /// Another package, and the same one, come meanwhile.
    pub(super) busy: bool,
    /// The recovery is repeated.
    pub(super) again: bool,
}

impl Plan {
    pub(super) fn draw(seed: u64, round: u64) -> Self {
        let lots = &mut Lots::new(seed, round);
        let ending = match lots.below(100) {
            0..40 => Ending::Confirmed,
            40..50 => Ending::Unconfirmed,
            50..72 => Ending::Fails,
            72..80 => Ending::Denied,
            80..95 => Ending::Asked,
            _ => Ending::LinkLost,
        };
        let misfortune = misfortune(lots);
        let (mut operations, length) = (Vec::<Drawn>::new(), 1 + lots.below(6));
        while (operations.len() as u64) < length {
            let drawn = operation(lots);
            if operations.iter().all(|o| o.object != drawn.object) {
                operations.push(drawn);
            }
        }
        let lines: String = operations.iter().map(|o| o.lines.as_str()).collect();
        let mut grants: Vec<Value> = operations.iter().flat_map(|o| o.grants.clone()).collect();
        if ending == Ending::Denied {
            let missing = lots.below(grants.len() as u64);
            grants.remove(usize::try_from(missing).unwrap());
        }
        let end = if ending == Ending::Fails {
            "exit 7"
        } else {
            "exit 0"
        };
        Self {
            script: format!("set -eu\n{lines}{end}\n"),
            grants: serde_json::from_value(Value::Array(grants)).unwrap(),
            rough: operations.iter().any(|o| o.rough),
            ending,
            misfortune,
            uplink: lots.percent(30),
            stranger: lots.percent(15),
            busy: lots.percent(15),
            again: lots.percent(20),
        }
    }
}

fn misfortune(lots: &mut Lots) -> Misfortune {
    let kind = lots.below(100);
    let at = lots.part();
    let recoveries = match lots.below(10) {
        0..6 => Vec::new(),
        6..9 => vec![lots.part()],
        _ => vec![lots.part(), lots.part()],
    };
    match kind {
        0..24 => Misfortune::None,
        24..80 => Misfortune::Killed { at, recoveries },
        80..88 => Misfortune::Rebooted { at, recoveries },
        88..91 => Misfortune::Stopped { at },
        91..98 => Misfortune::Full {
            at: if lots.percent(20) { 0.0 } else { at },
            left: lots.pick(&[0, 4096, 16 << 10, 64 << 10, 512 << 10]),
        },
        _ => Misfortune::Refused {
            call: lots.pick(&[
                "fdatasync",
                "fsync",
                "write",
                "renameat",
                "openat",
                "linkat",
                "unlinkat",
            ]),
            error: lots.pick(&["error=EIO", "error=ENOSPC", "signal=KILL"]),
            number: 1 + lots.below(40),
        },
    }
}

/// One operation, or some that belong together.
struct Drawn {
    /// No other of the round is about this.
    object: &'static str,
    lines: String,
    grants: Vec<Value>,
    rough: bool,
}

fn drawn(object: &'static str, words: &str, grant: Value) -> Drawn {
    Drawn {
        object,
        lines: format!("change {words}\n"),
        grants: vec![grant],
        rough: false,
    }
}

fn rough(drawn: Drawn) -> Drawn {
    Drawn {
        rough: true,
        ..drawn
    }
}

/// Each is valid on the router of `world.rs` as it is built.
fn operation(lots: &mut Lots) -> Drawn {
    match lots.below(11) {
        0 => route(lots),
        1 => address(lots),
        2 => link(lots),
        3 => neighbour(lots),
        4 => rule(lots),
        5 => table(lots),
        6 => parameter(lots),
        7 => file(lots),
        8 => uci(lots),
        9 => service(lots),
        _ => route(lots),
    }
}

fn route(lots: &mut Lots) -> Drawn {
    let n = lots.below(16) + 16;
    match lots.below(9) {
        0 => drawn(
            "172",
            &format!("route add 172.{n}.0.0/16 via 10.1.0.7 dev lan"),
            json!({"route": {"add": {"dst": format!("172.{n}.0.0/16"), "via": "10.1.0.7", "dev": "lan"}}}),
        ),
        1 => drawn(
            "10.9",
            "route replace 10.9.0.0/16 via 10.1.0.7 dev lan",
            json!({"route": {"replace": {"dst": "10.9.0.0/16", "via": "10.1.0.7", "dev": "lan"}}}),
        ),
        2 => drawn(
            "10.8",
            "route delete 10.8.0.0/16",
            json!({"route": {"delete": {"dst": "10.8.0.0/16"}}}),
        ),
        3 => drawn(
            "10.66",
            "route delete 10.66.0.0/16",
            json!({"route": {"delete": {"dst": "10.66.0.0/16"}}}),
        ),
        4 => drawn(
            "default",
            &format!("route add default via 192.0.2.1 dev wan metric {n}"),
            json!({"route": {"add": {"dst": "default", "via": "192.0.2.1", "dev": "wan", "metric": n}}}),
        ),
        5 => drawn(
            "99",
            "route delete 2001:db8:99::/48",
            json!({"route": {"delete": {"dst": "2001:db8:99::/48"}}}),
        ),
        6 => drawn(
            "98",
            &format!("route add 2001:db8:98::/48 via 2001:db8:2::9 dev lan metric {n}"),
            json!({"route": {"add": {"dst": "2001:db8:98::/48", "via": "2001:db8:2::9", "dev": "lan", "metric": n}}}),
        ),
        7 => drawn(
            "table 100",
            "route replace default via 10.1.0.7 dev lan table 100",
            json!({"route": {"replace": {"dst": "default", "via": "10.1.0.7", "dev": "lan", "table": 100}}}),
        ),
        // The one that the device probes.
        _ => rough(drawn(
            "default",
            "route delete default via 192.0.2.1 dev wan metric 100",
            json!({"route": {"delete": {"dst": "default", "via": "192.0.2.1", "dev": "wan", "metric": 100}}}),
        )),
    }
}

fn address(lots: &mut Lots) -> Drawn {
    let n = lots.below(5) + 2;
    match lots.below(4) {
        0 => drawn(
            "fourth",
            &format!("address add 10.{n}.0.1/24 dev lan"),
            json!({"address": {"add": {"address": format!("10.{n}.0.1/24"), "dev": "lan"}}}),
        ),
        1 => drawn(
            "sixth",
            &format!("address add 2001:db8:{n}0::1/64 dev lan"),
            json!({"address": {"add": {"address": format!("2001:db8:{n}0::1/64"), "dev": "lan"}}}),
        ),
        2 => drawn(
            "192.0.2.3",
            "address delete 192.0.2.3/24 dev wan",
            json!({"address": {"delete": {"address": "192.0.2.3/24", "dev": "wan"}}}),
        ),
        // With it go the routes that stand on it.
        _ => rough(drawn(
            "192.0.2.2",
            "address delete 192.0.2.2/24 dev wan",
            json!({"address": {"delete": {"address": "192.0.2.2/24", "dev": "wan"}}}),
        )),
    }
}

fn link(lots: &mut Lots) -> Drawn {
    let mtu = 1280 + lots.below(200);
    match lots.below(4) {
        0 => drawn(
            "lan mtu",
            &format!("link set lan mtu {mtu}"),
            json!({"link": {"set": {"dev": "lan", "mtu": mtu}}}),
        ),
        1 => drawn(
            "spare",
            &format!("link set spare mtu {mtu}"),
            json!({"link": {"set": {"dev": "spare", "mtu": mtu}}}),
        ),
        2 => drawn(
            "spare",
            "link set spare up",
            json!({"link": {"set": {"dev": "spare", "up": true}}}),
        ),
        _ => rough(Drawn {
            object: "lan",
            lines: "change link set lan down\nchange link set lan up\n".to_owned(),
            grants: vec![
                json!({"link": {"set": {"dev": "lan", "up": false}}}),
                json!({"link": {"set": {"dev": "lan", "up": true}}}),
            ],
            rough: true,
        }),
    }
}

fn neighbour(lots: &mut Lots) -> Drawn {
    let n = 20 + lots.below(50);
    match lots.below(3) {
        0 => drawn(
            "10.1.0.77",
            "neighbour delete 10.1.0.77 dev lan",
            json!({"neighbour": {"delete": {"address": "10.1.0.77", "dev": "lan"}}}),
        ),
        1 => drawn(
            "10.1.0.77",
            "neighbour replace 10.1.0.77 lladdr 02:00:00:00:00:78 dev lan",
            json!({"neighbour": {"replace": {"address": "10.1.0.77", "lladdr": "02:00:00:00:00:78", "dev": "lan"}}}),
        ),
        _ => drawn(
            "neighbour",
            &format!("neighbour replace 10.1.0.{n} lladdr 02:00:00:00:00:{n} dev lan"),
            json!({"neighbour": {"replace": {"address": format!("10.1.0.{n}"), "lladdr": format!("02:00:00:00:00:{n}"), "dev": "lan"}}}),
        ),
    }
}

fn rule(lots: &mut Lots) -> Drawn {
    let priority = 300 + lots.below(500);
    match lots.below(3) {
        0 => drawn(
            "rule",
            &format!("rule add priority {priority} iif lan lookup 100"),
            json!({"rule": {"add": {"priority": priority, "table": 100, "iif": "lan"}}}),
        ),
        1 => drawn(
            "rule6",
            &format!("rule add priority {priority} from 2001:db8:2::/64 lookup 100"),
            json!({"rule": {"add": {"priority": priority, "table": 100, "from": "2001:db8:2::/64"}}}),
        ),
        _ => drawn(
            "rule 1000",
            "rule delete priority 1000 from 10.1.0.0/24 lookup 100",
            json!({"rule": {"delete": {"priority": 1000, "table": 100, "from": "10.1.0.0/24"}}}),
        ),
    }
}

fn table(lots: &mut Lots) -> Drawn {
    let port = 1000 + lots.below(9000);
    let chain = format!(
        "chain in {{\n type filter hook input priority filter; policy accept;\n tcp dport {port} drop\n }}"
    );
    match lots.below(3) {
        0 => drawn(
            "guard",
            &format!(
                "nft replace-table inet guard <<'END'\ntable inet guard {{\n {chain}\n}}\nEND"
            ),
            json!({"nft": {"replace_table": {"family": "inet", "name": "guard"}}}),
        ),
        1 => drawn(
            "fresh",
            &format!("nft replace-table ip fresh <<'END'\ntable ip fresh {{\n {chain}\n}}\nEND"),
            json!({"nft": {"replace_table": {"family": "ip", "name": "fresh"}}}),
        ),
        _ => drawn(
            "guard",
            "nft delete-table inet guard",
            json!({"nft": {"delete_table": {"family": "inet", "name": "guard"}}}),
        ),
    }
}

fn parameter(lots: &mut Lots) -> Drawn {
    let (key, value) = lots.pick(&[
        ("net.ipv4.conf.wan.rp_filter", "2"),
        ("net.ipv4.conf.lan.accept_redirects", "0"),
        ("net.ipv4.tcp_rmem", "4096 131072 8388608"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.wan.accept_ra", "2"),
        ("net.ipv6.conf.lan.disable_ipv6", "1"),
    ]);
    let grant = json!({"sysctl": {"set": {"key": key, "value": value}}});
    let words = format!("sysctl '{key}={value}'");
    // The routes and addresses of others in this script go with IPv6.
    match key {
        "net.ipv6.conf.lan.disable_ipv6" => rough(drawn("disable", &words, grant)),
        _ => drawn(key, &words, grant),
    }
}

fn file(lots: &mut Lots) -> Drawn {
    let n = lots.below(200);
    match lots.below(3) {
        0 => drawn(
            "resolv",
            &format!("file write /etc/resolv.conf <<'END'\nnameserver 192.0.2.{n}\nEND"),
            json!({"file": {"write": "/etc/resolv.conf"}}),
        ),
        1 => drawn(
            "new file",
            &format!("file write /etc/new.conf <<'END'\nsomething {n}\nEND"),
            json!({"file": {"write": "/etc/new.conf"}}),
        ),
        _ => drawn(
            "hosts",
            "file delete /etc/hosts",
            json!({"file": {"delete": "/etc/hosts"}}),
        ),
    }
}

fn uci(lots: &mut Lots) -> Drawn {
    let n = 1280 + lots.below(200);
    match lots.below(4) {
        0 => Drawn {
            object: "network.lan.mtu",
            lines: format!("change uci set 'network.lan.mtu={n}'\nchange uci reload network\n"),
            grants: vec![
                json!({"uci": {"set": {"key": "network.lan.mtu", "value": n.to_string()}}}),
                json!({"uci": {"reload": "network"}}),
            ],
            rough: false,
        },
        1 => drawn(
            "network.lan.dns",
            "uci add_list 'network.lan.dns=192.0.2.54'",
            json!({"uci": {"add_list": {"key": "network.lan.dns", "value": "192.0.2.54"}}}),
        ),
        2 => drawn(
            "firewall",
            "uci delete 'firewall.@rule[0]'",
            json!({"uci": {"delete": "firewall.@rule[0]"}}),
        ),
        _ => drawn(
            "dhcp",
            &format!("uci set 'dhcp.lan.leasetime={n}m'"),
            json!({"uci": {"set": {"key": "dhcp.lan.leasetime", "value": format!("{n}m")}}}),
        ),
    }
}

fn service(lots: &mut Lots) -> Drawn {
    let (deed, name) = lots.pick(&[
        ("restart", "dnsmasq"),
        ("stop", "dnsmasq"),
        ("start", "unbound"),
    ]);
    drawn(
        name,
        &format!("service {deed} {name}"),
        json!({"service": {deed: name}}),
    )
}
