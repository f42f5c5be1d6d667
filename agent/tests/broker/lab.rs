//! A network namespace with a small router in it, and a client that asks the broker as `change` does.

use std::future::Future;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use aizen_agent::broker::{Answer, Served, World, pair, serve};
use aizen_agent::rollback::{Checkpoint, Inverse};
use aizen_protocol::package::manifest::Operation;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Runs a test in a network namespace that ends with it, on a runtime like the device's.
pub(crate) fn in_namespace<F, T>(test: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("the tests of the broker run as root");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// `ip ARGUMENTS…`, which must succeed.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A router: `wan` with a DHCP-like default route, `lan` with static routes, IPv6 on both, a rule, a second table, a
/// permanent neighbour.
pub(crate) fn router() {
    for command in [
        "link set lo up",
        "link add wan address 02:00:00:00:00:01 type veth peer name far0 address 02:00:00:00:00:02",
        "link add lan address 02:00:00:00:00:03 type veth peer name far1 address 02:00:00:00:00:04",
        "link set wan up",
        "link set far0 up",
        "link set lan up",
        "link set far1 up",
        "address add 192.0.2.2/24 brd + dev wan",
        "address add 192.0.2.3/24 dev wan",
        "address add 10.1.0.1/24 brd + dev lan",
        "address add 2001:db8:1::2/64 dev wan nodad",
        "address add 2001:db8:2::1/64 dev lan nodad",
        "route add default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100",
        "route add 10.9.0.0/16 via 10.1.0.9 dev lan proto static mtu 1400",
        "route add 10.8.0.0/16 dev lan scope link",
        "route add blackhole 10.66.0.0/16",
        "route add default via 10.1.0.250 dev lan table 100",
        "-6 route add default via 2001:db8:1::1 dev wan metric 512",
        "-6 route add 2001:db8:99::/48 via 2001:db8:2::9 dev lan",
        "rule add from 10.1.0.0/24 lookup 100 priority 1000",
        "rule add from 10.5.0.0/24 lookup 100 priority 1000",
        "neighbour add 10.1.0.77 lladdr 02:00:00:00:00:77 dev lan nud permanent",
    ] {
        ip(command);
    }
    nft("-f -", FILTERS);
    settle();
}

/// A table as routers have one, with all that moves by itself, and somebody else's.
pub(crate) const FILTERS: &str = r#"
table inet guard {
    counter seen { packets 7 bytes 700
    }
    set learned {
        type ipv4_addr
        flags dynamic,timeout
        timeout 1h
        elements = { 198.51.100.7 }
    }
    set blocked {
        type ipv4_addr
        flags interval
        counter
        elements = { 203.0.113.0/24 counter packets 5 bytes 10 }
    }
    map ports {
        type inet_service : verdict
        elements = { 22 : accept, 23 : drop }
    }
    chain in {
        type filter hook input priority filter; policy accept;
        ip saddr @blocked counter packets 3 bytes 4 drop comment "a } b # c"
        iifname "wan" ct state new update @learned { ip saddr } counter name "seen"
        tcp dport vmap @ports
        limit rate 5/second accept
    }
}
table ip other {
    chain out {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" masquerade
    }
}
"#;

/// `nft ARGUMENTS…`, which must succeed.
pub(crate) fn nft(arguments: &str, input: &str) -> String {
    use std::process::Stdio;
    let mut child = Command::new("nft")
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("these tests need the Debian package nftables");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "nft {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a tool shows: `ip` unless another one is named.
pub(crate) fn show(arguments: &str) -> String {
    match arguments.strip_prefix("nft ") {
        Some(arguments) => nft(arguments, ""),
        None => ip(arguments),
    }
}

/// IPv6 gives each link its own address some time after it is up; a checkpoint before that would see it come.
fn settle() {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while ip("-6 -o address show scope link").lines().count() < 4 {
        assert!(
            std::time::Instant::now() < deadline,
            "the links never settled: {}",
            ip("-6 address")
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// What `ip` and `nft` show, counters included, without what moves by itself: an opinion that is not ours.
pub(crate) fn picture() -> String {
    let steady = |line: &&str| {
        !line.contains("table local") && !line.contains("fe80::") && !line.contains("ff00::")
    };
    let mut all = String::new();
    for command in [
        "-4 -o address",
        "-6 -o address",
        "-4 route show table all",
        "-6 route show table all",
        "rule",
        "-6 rule",
        "neighbour show nud permanent",
        "-o link",
    ] {
        let text = ip(command);
        let mut lines: Vec<String> = text
            .lines()
            .filter(steady)
            .map(|l| l.replace("tentative ", "").replace("nodad ", ""))
            .collect();
        if command.contains("route") || command.starts_with("-6") {
            lines.sort();
        }
        all += &format!("{command}\n{}\n", lines.join("\n"));
    }
    all += &filters();
    for key in [
        "net/ipv4/ip_forward",
        "net/ipv4/conf/lan/accept_redirects",
        "net/ipv4/conf/all/accept_redirects",
        "net/ipv6/conf/lan/disable_ipv6",
    ] {
        all += &format!(
            "{key} {}",
            std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap()
        );
    }
    all
}

/// The tables of nftables, in an order of their own: one that is put back is registered anew and listed last.
pub(crate) fn filters() -> String {
    let moves = |line: &&str| !line.contains("expires");
    let filters = nft("list ruleset", "");
    let filters: String = filters
        .lines()
        .filter(moves)
        .map(|l| format!("{l}\n"))
        .collect();
    let mut tables: Vec<&str> = filters.split_inclusive("\n}\n").collect();
    tables.sort_unstable();
    tables.concat()
}

/// The real root: for tests that touch no file.
pub(crate) fn host() -> World {
    World::at("/")
}

pub(crate) fn operation(json: &str) -> Operation {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

pub(crate) fn operations(json: &[&str]) -> Vec<Operation> {
    json.iter().map(|j| operation(j)).collect()
}

/// What a run did.
pub(crate) struct Run {
    pub(crate) served: Served,
    pub(crate) inverses: Vec<Inverse>,
    pub(crate) answers: Vec<Answer>,
}

impl Run {
    /// Every operation was done.
    pub(crate) fn all_done(self) -> Self {
        for answer in &self.answers {
            assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
        }
        self
    }
}

/// Asks for each operation in turn and collects the journal.
pub(crate) async fn run(
    world: &World,
    grants: &[Operation],
    requests: &[(Operation, &[u8])],
) -> Run {
    run_with(world, grants, requests, |_| Ok(())).await
}

pub(crate) async fn run_with(
    world: &World,
    grants: &[Operation],
    requests: &[(Operation, &[u8])],
    mut journal: impl FnMut(&Inverse) -> io::Result<()>,
) -> Run {
    let (ours, theirs) = pair().unwrap();
    let requests: Vec<(Operation, Vec<u8>)> = requests
        .iter()
        .map(|(o, c)| (o.clone(), c.to_vec()))
        .collect();
    let client = tokio::task::spawn_blocking(move || {
        requests
            .iter()
            .filter_map(|(o, c)| try_ask(&theirs, o, c))
            .collect::<Vec<_>>()
    });
    let mut inverses = Vec::new();
    let mut before_act = |inverse: &Inverse| {
        inverses.push(inverse.clone());
        journal(inverse)
    };
    let served = serve(world, grants, ours, &mut before_act, &mut |_| {}).await;
    Run {
        served,
        inverses,
        answers: client.await.unwrap(),
    }
}

/// One request as `change` makes it, which must be answered.
pub(crate) fn ask(door: &OwnedFd, operation: &Operation, content: &[u8]) -> Answer {
    try_ask(door, operation, content).expect("an answer")
}

/// The answer; none from a broker that does not serve.
fn try_ask(door: &OwnedFd, operation: &Operation, content: &[u8]) -> Option<Answer> {
    let mut line = serde_json::to_vec(operation).unwrap();
    line.push(b'\n');
    line.extend_from_slice(content);
    let answer = ask_raw(door, &line).ok()?;
    Some(serde_json::from_slice(&answer).unwrap())
}

pub(crate) fn ask_raw(door: &OwnedFd, request: &[u8]) -> io::Result<Vec<u8>> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let rights = [theirs.as_raw_fd()];
    sendmsg::<()>(
        door.as_raw_fd(),
        &[IoSlice::new(b"c")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        None,
    )?;
    drop(theirs);
    ours.write_all(request)?;
    ours.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer)?;
    Ok(answer)
}

pub(crate) async fn take(world: &World, grants: &[Operation]) -> Checkpoint {
    Checkpoint::take(world, grants).await.unwrap()
}

/// Both states are the same, by our comparison and by our digest.
pub(crate) fn assert_same(before: &Checkpoint, after: &Checkpoint) {
    let differences = before.differences(after);
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(before.digest(), after.digest());
}
