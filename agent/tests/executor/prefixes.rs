//! Repair scripts as people and the expert write them, in `scripts/`, each with what its manifest grants: stopped after
//! each of their operations, they leave the device exactly as it was.
//!
//! Each is tried in two ways at every length: it fails, and is undone; or the executor is killed while the script still
//! runs, before the journal says another word, and the next start undoes it. All of them run with `cargo xtask soak`;
//! a dozen, with the kill at full length alone, in every test run.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aizen_protocol::outcome::{End, Stage};
use aizen_protocol::package::Package;
use aizen_protocol::package::manifest::Operation;

use crate::device::{Device, ended, runs, until, wait_until, with_device};
use crate::lab;
use crate::ubus::{self, Services};
use aizen_protocol::control::ExecutorAnswer;

/// One test for each script that runs in every test run.
macro_rules! dozen {
    ($($name:ident),+ $(,)?) => {
        &[
            $((
                concat!("from_every_prefix_of_", stringify!($name), "_the_device_is_as_before"),
                || every_prefix_of(&stringify!($name).replace('_', "-")),
            ),)+
            ("every_kind_of_operation_is_done_told_and_undone", done_and_told),
            ("what_is_secret_is_sealed_at_rest_and_comes_back", sealed),
        ]
    };
}

/// Each kind of operation is in one of them.
pub(crate) const ALL: &[(&str, fn())] = dozen![
    default_route_put_back,
    second_default_demoted,
    link_bounced,
    ipv6_off,
    source_routing,
    rule_moved,
    neighbour_corrected,
    filters_rearranged,
    services_swapped,
    uci_guest,
    uci_forwarding_removed,
    everything,
];

/// What `cargo xtask soak` adds.
pub(crate) const SOAK: &[(&str, fn())] = &[(
    "from_every_prefix_of_every_repair_the_device_is_as_before",
    every_script,
)];

/// Set by `cargo xtask soak`.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("AIZEN_SOAK").is_some()
}

/// What a script finds beside the router, and how that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Ground {
    pub(crate) lay: fn(),
    pub(crate) look: fn() -> String,
}

/// The router alone.
const ROUTER: Ground = Ground {
    lay: || (),
    look: String::new,
};

pub(crate) struct Script {
    name: String,
    head: String,
    operations: Vec<String>,
    grants: Vec<Operation>,
}

impl Script {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let grants = fs::read_to_string(path.with_extension("json")).unwrap();
        let (mut head, mut operations, mut inside) = (String::new(), Vec::<String>::new(), false);
        for line in text.lines() {
            if !inside && line.starts_with("change ") {
                operations.push(String::new());
            }
            *operations.last_mut().unwrap_or(&mut head) += &format!("{line}\n");
            inside = (inside || line.ends_with("<<'END'")) && line != "END";
        }
        Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            head,
            operations,
            grants: serde_json::from_str(&grants).unwrap(),
        }
    }

    /// All of it.
    pub(crate) fn whole(&self) -> String {
        self.cut(self.operations.len(), "exit 0")
    }

    /// Its beginning, and what comes after.
    fn cut(&self, length: usize, end: &str) -> String {
        format!("{}{}{end}\n", self.head, self.operations[..length].concat())
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/executor/scripts")
}

pub(crate) fn named(name: &str) -> Script {
    Script::read(&folder().join(format!("{name}.sh")))
}

/// The scripts of a folder below `scripts`, or of that itself.
pub(crate) fn library(below: &str) -> Vec<Script> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder().join(below))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sh"))
        .collect();
    paths.sort();
    paths.iter().map(|p| Script::read(p)).collect()
}

pub(crate) const NETWORK: &str = "# kept by a person\n\nconfig interface 'loopback'\n\toption device 'lo'\n\nconfig interface 'lan'   # ours\n\toption proto static\n\toption ipaddr \"10.1.0.1\"\n\tlist dns '192.0.2.53'\n\nconfig interface 'wan'\n\toption proto 'dhcp'\n\nconfig interface 'wg0'\n\toption proto 'wireguard'\n\toption private_key 'cGxhbnRlZC1zZWNyZXQtb2xkLWtleS1vZi10aGUtdGVzdA=='\n";

/// A package that is a script of the library.
pub(crate) fn package(device: &Device, name: &str) -> Package {
    let script = named(name);
    let mut package = device.package(&script.cut(script.operations.len(), "exit 0"));
    package.manifest.operations = script.grants;
    package
}

/// The names of all of them.
pub(crate) fn names() -> Vec<String> {
    library("").into_iter().map(|script| script.name).collect()
}

/// A router with files, configuration and services.
pub(crate) fn router(device: &Device) -> Services {
    lab::router();
    lab::ip("link add spare mtu 1400 address 02:00:00:00:00:06 type veth peer name far2");
    // It was used once: the kernel gives a link its queue when it first goes up, and leaves it there.
    lab::ip("link set spare up");
    lab::ip("link set spare down");
    // A namespace takes these from the machine.
    for (key, value) in [("wan/rp_filter", "0"), ("lan/accept_redirects", "1")] {
        fs::write(Path::new("/proc/sys/net/ipv4/conf").join(key), value).unwrap();
    }
    furnish(device)
}

/// Its files, configuration and services.
pub(crate) fn furnish(device: &Device) -> Services {
    let etc = device.path("root/etc");
    fs::create_dir_all(etc.join("config")).unwrap();
    for (name, text) in [
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
    ubus::start(
        &device.path("root"),
        &[("dnsmasq", true), ("unbound", false), ("network", true)],
    )
}

/// Everything that a script of the library could touch.
pub(crate) fn picture(device: &Device, services: &Services) -> String {
    let mut all = lab::picture();
    for key in [
        "net/ipv4/conf/wan/rp_filter",
        "net/ipv4/tcp_rmem",
        "net/ipv6/conf/wan/accept_ra",
        "net/ipv6/conf/all/forwarding",
    ] {
        let value = fs::read_to_string(Path::new("/proc/sys").join(key)).unwrap();
        all += &format!("{key} {value}");
    }
    for (path, (text, meta)) in files(&device.path("root/etc")) {
        let times = (meta.mtime(), meta.mtime_nsec());
        all += &format!(
            "{path} {:o} {} {} {times:?}\n{text}\n",
            meta.mode(),
            meta.uid(),
            meta.gid()
        );
    }
    all + &format!("{:?}\n", services.lock().unwrap())
}

pub(crate) fn files(folder: &Path) -> BTreeMap<String, (String, fs::Metadata)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        if meta.is_dir() {
            found.extend(files(&path));
        } else {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.insert(path.display().to_string(), (text, meta));
        }
    }
    found
}

/// A number that no other test sleeps for.
fn nap() -> String {
    format!("7{}", std::process::id())
}

pub(crate) async fn run(
    device: &Device,
    script: &Script,
    text: &str,
) -> aizen_agent::control::Connection {
    let mut package = device.package(text);
    package.manifest.operations.clone_from(&script.grants);
    device.execute(device.sign(&package), None).await
}

async fn fails(device: &Device, script: &Script, length: usize) {
    let mut life = run(device, script, &script.cut(length, "exit 7")).await;
    let (outcome, _) = ended(&mut life).await;
    assert_eq!(
        outcome.end,
        End::RolledBack,
        "{} after {length}: {} {:?} {:?}",
        script.name,
        outcome.detail,
        outcome.not_restored,
        outcome.script
    );
    let changes = outcome.effect.as_ref().map_or(0, |e| e.changes.len());
    assert!(
        changes >= length,
        "{} after {length}: {outcome:?}",
        script.name
    );
    assert_eq!(
        outcome.state_before, outcome.state_after,
        "{} after {length}",
        script.name
    );
}

async fn is_killed(device: &mut Device, script: &Script, length: usize) {
    let nap = nap();
    let text = script.cut(length, &format!("exec sleep {nap}"));
    let mut life = run(device, script, &text).await;
    until(&mut life, |answer| match answer {
        ExecutorAnswer::Reached {
            stage: Stage::Running,
            ..
        } => Some(()),
        _ => None,
    })
    .await;
    wait_until("the last operation", || runs(&format!("sleep\0{nap}"))).await;
    device.kill();
    device.start().await;
    wait_until("the script's end", || !runs(&format!("sleep\0{nap}"))).await;
    let told = device.outcomes().await;
    let last = told.last().unwrap();
    assert_eq!(
        last.end,
        End::RolledBack,
        "{} killed after {length}: {} {:?}",
        script.name,
        last.detail,
        last.not_restored
    );
}

fn every_script() {
    let library = library("");
    assert!(library.len() >= 40, "{}", library.len());
    try_all(library, ROUTER);
}

pub(crate) fn try_all(scripts: Vec<Script>, ground: Ground) {
    for script in scripts {
        println!("{}", script.name);
        // Each in a namespace and a root of its own.
        let thread = std::thread::spawn(move || try_prefixes(script, ground));
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn every_prefix_of(name: &str) {
    try_prefixes(named(name), ROUTER);
}

fn try_prefixes(script: Script, ground: Ground) {
    with_device(async move |mut device: Device| {
        let services = router(&device);
        (ground.lay)();
        let look = |device: &Device| picture(device, &services) + &(ground.look)();
        device.start().await;
        let before = look(&device);
        let length = script.operations.len();
        for prefix in 1..=length {
            fails(&device, &script, prefix).await;
            let now = look(&device);
            assert_eq!(before, now, "{} after {prefix}", script.name);
            if is_soak() || prefix == length {
                is_killed(&mut device, &script, prefix).await;
                let now = look(&device);
                assert_eq!(before, now, "{} killed after {prefix}", script.name);
            }
        }
    });
}

fn done_and_told() {
    with_device(async |mut device: Device| {
        let services = router(&device);
        device.start().await;
        let before = picture(&device, &services);
        let script = named("everything");
        let mut life = run(
            &device,
            &script,
            &script.cut(script.operations.len(), "exit 0"),
        )
        .await;
        let change = crate::device::wants_on_site(&mut life).await;
        let now = picture(&device, &services);
        for done in [
            "nameserver 192.0.2.54",
            "10.2.0.1/24",
            "900:\tfrom all iif lan lookup 100",
            "172.16.0.0/12 via 10.1.0.7",
            "10.1.0.9 dev lan lladdr 02:00:00:00:00:09",
            "ct state established,related accept",
            "\toption mtu '1400'",
        ] {
            assert!(
                now.contains(done) && !before.contains(done),
                "{done}: {now}"
            );
        }
        device
            .ask(aizen_protocol::control::ExecutorRequest::RollBack { change })
            .await;
        let (outcome, _) = ended(&mut life).await;
        assert_eq!(outcome.end, End::RolledBack, "{outcome:?}");
        let effect = outcome.effect.unwrap();
        let told: Vec<(String, String, String)> = effect
            .changes
            .iter()
            .map(|c| {
                (
                    c.object.0.clone(),
                    c.owner.clone(),
                    format!("{:?}", c.lasts),
                )
            })
            .collect();
        for (object, owner, lasts) in [
            ("/etc/resolv.conf", "file", "ForGood"),
            ("lan", "kernel", "UntilReboot"),
            ("10.2.0.1/24 dev lan", "static", "UntilReboot"),
            ("900 iif lan lookup 100", "kernel", "UntilReboot"),
            ("172.16.0.0/12", "static", "UntilReboot"),
            ("10.1.0.9 dev lan", "kernel", "UntilReboot"),
            (
                "net.ipv4.conf.lan.accept_redirects",
                "kernel",
                "UntilReboot",
            ),
            ("inet guard", "kernel", "UntilReboot"),
            ("network.lan.mtu", "uci", "ForGood"),
            ("reload of network", "procd", "UntilReboot"),
            ("dnsmasq", "procd", "UntilReboot"),
        ] {
            let wanted = (object.to_owned(), owner.to_owned(), lasts.to_owned());
            assert!(told.contains(&wanted), "{wanted:?}: {told:#?}");
        }
        assert!(
            effect.irreversible.iter().any(|t| t.0.contains("dnsmasq")),
            "{:?}",
            effect.irreversible
        );
        assert_eq!(before, picture(&device, &services));
    });
}

fn sealed() {
    with_device(async |mut device: Device| {
        let services = router(&device);
        device.start().await;
        let before = picture(&device, &services);
        let script = named("uci-wireless-key");
        let nap = nap();
        let text = script.cut(script.operations.len(), &format!("exec sleep {nap}"));
        let mut life = run(&device, &script, &text).await;
        until(&mut life, |answer| match answer {
            ExecutorAnswer::Reached {
                stage: Stage::Running,
                ..
            } => Some(()),
            _ => None,
        })
        .await;
        wait_until("the last operation", || runs(&format!("sleep\0{nap}"))).await;
        device.kill();
        let state = files(&device.path("state"));
        assert!(
            state.keys().any(|path| path.contains("/snapshots/")),
            "{:?}",
            state.keys()
        );
        for (path, (text, _)) in &state {
            // Each secret begins so, in base64 and in the base64 of that.
            for secret in ["cGxhbnRlZC1zZWNyZXQt", "Y0d4aGJuUmxaQzF6", "planted-secret"] {
                assert!(!text.contains(secret), "{path} holds {secret}");
            }
        }
        device.start().await;
        let told = device.outcomes().await;
        assert_eq!(told[0].end, End::RolledBack, "{:?}", told[0]);
        assert_eq!(before, picture(&device, &services));
    });
}
