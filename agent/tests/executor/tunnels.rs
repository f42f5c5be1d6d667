//! Repair scripts for WireGuard, in `scripts/wireguard/`, against the kernel's own module: stopped after each of their
//! operations, they leave the peers exactly as `wg` showed them before. `cargo xtask soak tunnels` runs them in a
//! virtual machine, as not every kernel has the module.

use std::io::Write as _;
use std::process::{Command, Stdio};

use aizen_protocol::outcome::End;

use crate::device::{Device, ended, wants_on_site, with_device};
use crate::prefixes::{self, Ground};

/// What `cargo xtask soak` adds.
pub(crate) const SOAK: &[(&str, fn())] = &[
    (
        "tunnels_from_every_prefix_of_every_script_are_as_before",
        every_script,
    ),
    (
        "tunnels_are_changed_as_told_and_put_back_when_a_person_says_so",
        done_and_told,
    ),
];

const OFFICE: &str = "ERERERERERERERERERERERERERERERERERERERERERE=";
const WARRIOR: &str = "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=";
const MANY: &str = "REREREREREREREREREREREREREREREREREREREREREQ=";
/// Networks of one peer that one message can't hold.
const NETWORKS: u32 = 2500;

const GROUND: Ground = Ground {
    lay: tunnels,
    look: picture,
};

/// A tunnel with an office behind a preshared key, somebody who dials in, and a peer with many networks.
fn tunnels() {
    crate::lab::ip("link add tunnel mtu 1420 type wireguard");
    crate::lab::ip("address add 10.7.0.1/24 dev tunnel");
    let many: Vec<String> = (0..NETWORKS)
        .map(|n| format!("10.{}.{}.{}/32", 128 + n / 4096, n / 16 % 256, n % 16))
        .collect();
    let many = many.join(",");
    let secret = "VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVU=\n";
    wg(
        "set tunnel private-key /dev/stdin listen-port 51820",
        secret,
    );
    wg(
        &format!(
            "set tunnel peer {OFFICE} preshared-key /dev/stdin endpoint 192.0.2.1:51820 persistent-keepalive 25 \
             allowed-ips 10.7.0.2/32,10.70.0.0/16,2001:db8:7::/48"
        ),
        secret,
    );
    wg(
        &format!("set tunnel peer {WARRIOR} allowed-ips 10.7.0.3/32"),
        "",
    );
    // The length of a line of `wg set` is bounded, and so is that of a message: it sends several, too.
    wg(
        "addconf tunnel /dev/stdin",
        &format!("[Peer]\nPublicKey = {MANY}\nAllowedIPs = {many}\n"),
    );
    crate::lab::ip("link set tunnel up");
    crate::lab::ip("route add 10.70.0.0/16 dev tunnel");
}

/// What `wg` shows of the configuration: private and preshared keys, peers, endpoints, keepalives, networks.
fn picture() -> String {
    let text = wg("showconf tunnel", "");
    // Peers are listed by age, networks of one by their place in a trie.
    let mut sections: Vec<String> = text.split("\n\n").map(section).collect();
    sections.sort_unstable();
    sections.join("\n\n")
}

fn section(text: &str) -> String {
    let line = |line: &str| match line.split_once("AllowedIPs = ") {
        Some((_, list)) => {
            let mut networks: Vec<&str> = list.split(", ").collect();
            networks.sort_unstable();
            format!("AllowedIPs = {}", networks.join(", "))
        }
        None => line.to_owned(),
    };
    text.trim().lines().map(line).collect::<Vec<_>>().join("\n")
}

fn wg(arguments: &str, input: &str) -> String {
    let mut child = Command::new("wg")
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these trials need the Debian package wireguard-tools");
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(input.as_bytes()).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "wg {arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn every_script() {
    prefixes::try_all(prefixes::library("wireguard"), GROUND);
}

fn done_and_told() {
    with_device(async |mut device: Device| {
        let services = prefixes::router(&device);
        tunnels();
        device.start().await;
        let before = prefixes::picture(&device, &services) + &picture();
        let script = prefixes::named("wireguard/peer-replaced");
        let mut life = prefixes::run(&device, &script, &script.whole()).await;
        let change = wants_on_site(&mut life).await;
        let now = picture();
        assert!(
            !now.contains(OFFICE) && now.contains("AllowedIPs = 10.7.0.2/32, 10.70.0.0/16"),
            "{now}"
        );
        device
            .ask(aizen_protocol::control::ExecutorRequest::RollBack { change })
            .await;
        let (outcome, _) = ended(&mut life).await;
        assert_eq!(outcome.end, End::RolledBack, "{outcome:?}");
        assert_eq!(before, prefixes::picture(&device, &services) + &picture());
        let effect = outcome.effect.unwrap();
        let objects: Vec<&str> = effect.changes.iter().map(|c| c.object.0.as_str()).collect();
        assert!(
            objects.contains(&format!("tunnel peer {OFFICE}").as_str()),
            "{objects:?}"
        );
    });
}
