//! The router that rounds change: links with somebody behind them who answers, files, configuration, services.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use crate::device::{BEFORE, Device, wait_until};
use crate::lab;
use crate::prefixes::{NETWORK, files};
use crate::ubus::{self, Services};

/// What a router has. `PEER` is the process in whose namespace the other ends are.
const LINKS: &str = "\
link set lo up
link add wan address 02:00:00:00:00:01 type veth peer name far0 netns PEER
link add lan address 02:00:00:00:00:03 type veth peer name far1 netns PEER
link add other address 02:00:00:00:00:05 type veth peer name far2 netns PEER
link add spare mtu 1400 address 02:00:00:00:00:07 type veth peer name far3 netns PEER
link set wan up
link set lan up
link set other up
address add 192.0.2.2/24 brd + dev wan
address add 192.0.2.3/24 dev wan
address add 10.1.0.1/24 brd + dev lan
address add 10.99.0.1/24 dev other
address add 2001:db8:1::2/64 dev wan nodad
address add 2001:db8:2::1/64 dev lan nodad
";

const FAR: &str = "\
link set lo up
link set far0 up
link set far1 up
link set far2 up
address add 192.0.2.1/24 dev far0
address add 2001:db8:1::1/64 dev far0 nodad
address add 10.1.0.7/24 dev far1
address add 10.1.0.9/24 dev far1
address add 10.1.0.250/24 dev far1
address add 2001:db8:2::9/64 dev far1 nodad
";

const ROUTES: &str = "\
route add default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100
route add 10.9.0.0/16 via 10.1.0.9 dev lan proto static mtu 1400
route add 10.8.0.0/16 dev lan scope link
route add blackhole 10.66.0.0/16
route add default via 10.1.0.250 dev lan table 100
route add default via 2001:db8:1::1 dev wan metric 512
route add 2001:db8:99::/48 via 2001:db8:2::9 dev lan
rule add from 10.1.0.0/24 lookup 100 priority 1000
rule add from 10.5.0.0/24 lookup 100 priority 1000
neighbour add 10.1.0.77 lladdr 02:00:00:00:00:77 dev lan nud permanent
";

const RUNNING: &[(&str, bool)] = &[("dnsmasq", true), ("unbound", false), ("network", true)];

/// A route that only somebody else would add: it is no part of a picture.
pub(super) const STRANGE: &str = "10.77.0.0/24";

/// Everything that a round could touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) kernel: String,
    pub(super) files: String,
    pub(super) services: String,
}

impl Picture {
    /// The lines that differ.
    pub(super) fn differences(&self, other: &Self) -> String {
        let mut told = String::new();
        for (ours, theirs) in [
            (&self.kernel, &other.kernel),
            (&self.files, &other.files),
            (&self.services, &other.services),
        ] {
            let count = |text: &str, line: &str| text.lines().filter(|l| *l == line).count();
            for (sign, from, to) in [('-', ours, theirs), ('+', theirs, ours)] {
                for line in from.lines() {
                    if count(from, line) > count(to, line) {
                        told += &format!("  {sign} {line}\n");
                    }
                }
            }
            if told.is_empty() && ours != theirs {
                told += "  the order of lines\n";
            }
        }
        told
    }
}

pub(super) struct World {
    services: Services,
    peer: Child,
    root: std::path::PathBuf,
}

impl World {
    /// The services' stand-in lasts for the device's life, the rest is built by [`World::rebuild`].
    pub(super) fn new(device: &Device) -> Self {
        let root = device.path("root");
        Self {
            services: ubus::start(&root, RUNNING),
            peer: peer(),
            root,
        }
    }

    /// A network namespace as a device has it after a start, files as they were first.
    pub(super) async fn rebuild(&mut self) {
        self.files();
        self.reboot().await;
    }

    /// The same with the files left alone. The executor must be started after it: it would stay in the old namespace.
    pub(super) async fn reboot(&mut self) {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        self.end_peer();
        self.peer = peer();
        let id = self.peer.id();
        // The process is there before it is in its namespace.
        let (ours, theirs) = ("/proc/thread-self/ns/net", format!("/proc/{id}/ns/net"));
        let apart = || fs::read_link(&theirs).ok() != fs::read_link(ours).ok();
        wait_until("the peer's namespace", apart).await;
        for of in ["default", "all"] {
            self.write(&format!("ipv6/conf/{of}/accept_dad"), "0");
            self.far(
                "sysctl",
                &["-qw", &format!("net.ipv6.conf.{of}.accept_dad=0")],
                "",
            );
        }
        batch(
            "ip",
            &["-batch", "-"],
            &LINKS.replace("PEER", &id.to_string()),
        );
        self.far("ip", &["-batch", "-"], FAR);
        batch("ip", &["-batch", "-"], ROUTES);
        lab::nft("-f -", lab::FILTERS);
        for (key, value) in [
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/wan/rp_filter", "0"),
            ("ipv4/conf/lan/accept_redirects", "1"),
        ] {
            self.write(key, value);
        }
        let local = || batch("ip", &["-6", "-o", "address", "show", "scope", "link"], "");
        wait_until("the links' own addresses", || local().lines().count() == 3).await;
        *self.services.lock().unwrap() =
            RUNNING.iter().map(|(n, r)| ((*n).to_owned(), *r)).collect();
    }

    fn write(&self, key: &str, value: &str) {
        fs::write(Path::new("/proc/sys/net").join(key), value).unwrap();
    }

    fn files(&self) {
        let etc = self.root.join("etc");
        fs::remove_dir_all(&etc).unwrap();
        fs::create_dir_all(etc.join("config")).unwrap();
        for (name, text) in [
            ("resolv.conf", BEFORE),
            ("hosts", "127.0.0.1 localhost\n"),
            ("config/network", NETWORK),
            (
                "config/dhcp",
                "config dhcp 'lan'\n\toption interface 'lan'\n\toption leasetime '12h'\n",
            ),
            (
                "config/firewall",
                "config defaults\n\toption input ACCEPT\n\nconfig rule\n\toption name 'Allow-DHCP'\n\nconfig rule\n\toption name 'Allow-Ping' # last",
            ),
        ] {
            fs::write(etc.join(name), text).unwrap();
        }
    }

    /// A program at the other end of the links.
    pub(super) fn far(&self, program: &str, words: &[&str], input: &str) {
        let id = self.peer.id().to_string();
        let inside = ["-n", "-t", &id, "--", program];
        batch("nsenter", &[&inside[..], words].concat(), input);
    }

    pub(super) fn picture(&self) -> Picture {
        let sorted = |text: String| {
            let steady = |l: &&str| {
                let moving = ["table local", "fe80::", "ff00::", STRANGE];
                moving.iter().all(|m| !l.contains(m))
            };
            let mut lines: Vec<&str> = text.lines().filter(steady).collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        let neighbours = "neighbour show nud permanent\n";
        let mut kernel = [
            batch(
                "ip",
                &["-4", "-o", "-batch", "-"],
                &format!("address\nrule\nlink\n{neighbours}"),
            ),
            batch(
                "ip",
                &["-6", "-o", "-batch", "-"],
                &format!("rule\n{neighbours}"),
            ),
            sorted(batch("ip", &["-4", "route", "show", "table", "all"], "")),
            sorted(batch(
                "ip",
                &["-6", "-o", "-batch", "-"],
                "address\nroute show table all\n",
            )),
            lab::filters(),
        ]
        .join("\n");
        // The carrier is not the change's; a link that was up once keeps its queue.
        for (seen, told) in [
            ("NO-CARRIER,", ""),
            (",LOWER_UP", ""),
            ("qdisc noop ", "qdisc noqueue "),
            ("state UP ", ""),
            ("state DOWN ", ""),
            ("state LOWERLAYERDOWN ", ""),
            ("state UNKNOWN ", ""),
            (" linkdown", ""),
        ] {
            kernel = kernel.replace(seen, told);
        }
        for key in [
            "ipv4/ip_forward",
            "ipv4/conf/all/accept_redirects",
            "ipv4/conf/wan/rp_filter",
            "ipv4/conf/lan/accept_redirects",
            "ipv4/conf/lan/forwarding",
            "ipv4/tcp_rmem",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/wan/accept_ra",
            "ipv6/conf/lan/disable_ipv6",
        ] {
            let value = fs::read_to_string(Path::new("/proc/sys/net").join(key)).unwrap();
            kernel += &format!("{key} {value}");
        }
        let mut told = String::new();
        for (path, (text, meta)) in files(&self.root.join("etc")) {
            let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
            let times = (meta.mtime(), meta.mtime_nsec());
            told += &format!("{path} {mode:o} {owner:?} {times:?}\n{text}\n");
        }
        Picture {
            kernel,
            files: told,
            services: format!("{:?}", self.services.lock().unwrap()),
        }
    }

    pub(super) fn peer(&self) -> u32 {
        self.peer.id()
    }

    fn end_peer(&mut self) {
        // It may have ended already.
        self.peer.kill().ok();
        self.peer.wait().ok();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_peer();
    }
}

/// A process that holds a namespace, and ends with the thread that started it.
fn peer() -> Child {
    Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "sleep",
            "infinity",
        ])
        .spawn()
        .expect("these tests need util-linux")
}

/// What a program says; it must succeed.
pub(super) fn batch(program: &str, words: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing may have ended.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
