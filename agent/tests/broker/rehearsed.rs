//! A rehearsal shows what the real run does, in a real sandbox, and leaves the device alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aizen_agent::broker::{Served, World, pair, serve};
use aizen_agent::rehearse::{RehearseError, ShadowRequest, rehearse};
use aizen_agent::rollback::{Inverse, restore};
use aizen_protocol::effect::{Effect, ObjectKind, ScriptEnd};
use aizen_protocol::package::manifest::{Operation, Risk};
use aizen_sandbox::{End, Finished, Profile};
use tempfile::TempDir;

use crate::lab::{assert_same, in_namespace, ip, operations, picture, router, take};

const AIZEN: &str = env!("CARGO_BIN_EXE_aizen");

/// A device's folder with a resolver file.
fn device() -> (TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    fs::write(
        folder.path().join("etc/resolv.conf"),
        "nameserver 192.0.2.53\nsearch lan\n",
    )
    .unwrap();
    fs::create_dir(folder.path().join("etc/config")).unwrap();
    fs::write(
        folder.path().join("etc/config/network"),
        "config interface 'lan'\n\toption ipaddr '10.1.0.1'\n",
    )
    .unwrap();
    let world = World::at(folder.path());
    (folder, world)
}

const GRANTS: &[&str] = &[
    r#"{"file":{"write":"/etc/resolv.conf"}}"#,
    r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
    r#"{"link":{"set":{"dev":"lan","up":false}}}"#,
    r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}"#,
    r#"{"address":{"add":{"address":"10.2.0.1/24","dev":"wan"}}}"#,
    r#"{"rule":{"add":{"priority":900,"iif":"lan","table":100}}}"#,
    r#"{"neighbour":{"replace":{"address":"10.1.0.9","lladdr":"02:00:00:00:00:09","dev":"lan"}}}"#,
    r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#,
    r#"{"uci":{"set":{"key":"network.lan.ipaddr","value":"10.2.0.1"}}}"#,
];

const SCRIPT: &str = r#"set -e
sed 's/192.0.2.53/192.0.2.54/' /etc/resolv.conf | change file write /etc/resolv.conf
change route replace default via "$IP_A" dev wan metric 100
change sysctl net.ipv4.ip_forward=1
change address add 10.2.0.1/24 dev wan
change rule add priority 900 iif lan lookup 100
change neighbour replace 10.1.0.9 lladdr 02:00:00:00:00:09 dev lan
change nft replace-table inet guard <<'END'
table inet guard {
    set s { type ipv4_addr; elements = { 192.0.2.9, 192.0.2.8 }
    }
    chain in { type filter hook input priority 0; policy accept
        ip saddr @s drop
    }
}
END
change uci set network.lan.ipaddr=10.2.0.1
change link set lan down
"#;

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("IP_A".to_owned(), "192.0.2.9".to_owned())])
}

fn request(world: &World, grants: &[Operation], script: &str) -> (TempDir, ShadowRequest) {
    let scratch = tempfile::tempdir().unwrap();
    let request = ShadowRequest {
        grants: grants.to_vec(),
        script: script.as_bytes().to_vec(),
        environment: environment(),
        reads: vec!["/etc/resolv.conf".into()],
        root: world.root.clone(),
        helper: AIZEN.into(),
        scratch: scratch.path().to_owned(),
        risk: Risk::Medium,
        ..ShadowRequest::default()
    };
    (scratch, request)
}

async fn shadow(
    world: &World,
    grants: &[Operation],
    script: &str,
) -> Result<Effect, RehearseError> {
    let (_scratch, request) = request(world, grants, script);
    rehearse(request).await
}

/// The real thing: `change` in a real sandbox, asking the broker of this namespace.
async fn real(
    world: &World,
    grants: &[Operation],
    script: &str,
) -> (Finished, Served, Vec<Inverse>) {
    let (ours, theirs) = pair().unwrap();
    let mut profile = Profile::new("/bin/sh", script);
    profile.helper = AIZEN.into();
    profile.change_tool = Some(AIZEN.into());
    profile.broker = Some(theirs);
    profile.environment = environment();
    let source = world.root.join("etc/resolv.conf");
    profile
        .reads
        .extend(source.exists().then(|| aizen_sandbox::ReadBind {
            source,
            target: "/etc/resolv.conf".into(),
        }));
    profile.timeout = Duration::from_secs(20);
    let sandbox =
        tokio::task::spawn_blocking(move || aizen_sandbox::run(profile, &AtomicBool::new(false)));
    let mut inverses = Vec::new();
    let mut before_act = |inverse: &Inverse| {
        inverses.push(inverse.clone());
        Ok(())
    };
    let mut after_act = |_: &_| {};
    let serve = serve(world, grants, ours, &mut before_act, &mut after_act);
    let (finished, served) = tokio::join!(sandbox, serve);
    (finished.unwrap().unwrap(), served, inverses)
}

fn said(finished: &Finished) -> String {
    String::from_utf8_lossy(&finished.output).into_owned()
}

#[test]
fn a_rehearsal_has_the_digest_of_the_real_run_and_leaves_the_device_as_it_was() {
    in_namespace(async || {
        router();
        let (folder, world) = device();
        let grants = operations(GRANTS);
        let checkpoint = take(&world, &grants).await;
        let before = (
            picture(),
            fs::read_dir(folder.path().join("etc")).unwrap().count(),
            mounts(),
        );
        let effect = shadow(&world, &grants, SCRIPT).await.unwrap();
        assert_same(&checkpoint, &take(&world, &grants).await);
        assert_eq!(
            before,
            (
                picture(),
                fs::read_dir(folder.path().join("etc")).unwrap().count(),
                mounts()
            )
        );
        assert_eq!(
            effect.script.end,
            ScriptEnd::Exited(0),
            "{}",
            effect.script.output
        );
        // The links' other ends are in this very namespace: nobody answers, and nobody was heard of.
        let told = &effect.not_rehearsed;
        let unknown = told.iter().filter(|text| {
            ["before the script either", "has not heard of it"]
                .iter()
                .any(|word| text.0.contains(word))
        });
        assert_eq!(unknown.count() + 1, told.len(), "{told:#?}");
        assert!(effect.lock_outs.is_empty(), "{:?}", effect.lock_outs);

        let (finished, served, inverses) = real(&world, &grants, SCRIPT).await;
        assert_eq!(finished.end, End::Exited(0), "{}", said(&finished));
        assert_eq!(
            fs::read_to_string(folder.path().join("etc/resolv.conf")).unwrap(),
            "nameserver 192.0.2.54\nsearch lan\n"
        );
        assert_eq!(effect.changes, served.changes);
        let happened = Effect {
            changes: served.changes,
            ..effect.clone()
        };
        assert_eq!(effect.digest(), happened.digest());
        assert!(effect.management_path);
        assert_eq!(effect.risk, Risk::High);
        assert_eq!(effect.irreversible.len(), 1);

        let restored = restore(&world, &checkpoint, &inverses).await;
        assert!(
            restored.not_restored.is_empty() && restored.drift.is_empty(),
            "{restored:#?}"
        );
        assert_same(&checkpoint, &restored.after.unwrap());
        assert_eq!(before.0, picture());
    });
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mounts").unwrap()
}

#[test]
fn every_kind_of_change_is_shown_as_it_will_be() {
    in_namespace(async || {
        router();
        let (_folder, world) = device();
        let effect = shadow(&world, &operations(GRANTS), SCRIPT).await.unwrap();
        let kinds: Vec<ObjectKind> = effect.changes.iter().map(|c| c.kind).collect();
        for kind in [
            ObjectKind::File,
            ObjectKind::Route,
            ObjectKind::Sysctl,
            ObjectKind::Address,
            ObjectKind::Link,
            ObjectKind::Rule,
            ObjectKind::Neighbour,
            ObjectKind::Nft,
            ObjectKind::Uci,
        ] {
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        let all: String = effect.changes.iter().map(|c| c.diff.0.as_str()).collect();
        for line in [
            "-nameserver 192.0.2.53\n+nameserver 192.0.2.54\n",
            "- default via 192.0.2.1 dev wan proto dhcp src 192.0.2.2 metric 100\n+ default via 192.0.2.9 dev wan proto static metric 100\n",
            "- net.ipv4.ip_forward = 0\n+ net.ipv4.ip_forward = 1\n",
            "+ 10.2.0.1/24 dev wan\n",
            "+ rule 900 iif lan lookup 100\n",
            "+ 10.1.0.9 dev lan lladdr 02:00:00:00:00:09\n",
            "+\t\tip saddr @s drop\n",
            "- network.lan.ipaddr='10.1.0.1'\n+ network.lan.ipaddr='10.2.0.1'\n",
            "- lan up mtu 1500\n+ lan down mtu 1500\n",
            "- 10.9.0.0/16 via 10.1.0.9 dev lan proto static\n",
        ] {
            assert!(all.contains(line), "{line}\nin\n{all}");
        }
    });
}

#[test]
fn a_change_far_from_the_uplink_is_not_the_management_path() {
    in_namespace(async || {
        router();
        let (_folder, world) = device();
        let grants = operations(&[
            r#"{"route":{"add":{"dst":"10.77.0.0/16","via":"10.1.0.7"}}}"#,
            r#"{"route":{"add":{"dst":"203.0.113.0/24","via":"10.1.0.7"}}}"#,
        ]);
        let (_scratch, mut request) = request(
            &world,
            &grants,
            "change route add 10.77.0.0/16 via 10.1.0.7",
        );
        request.uplink = vec!["203.0.113.5".parse().unwrap()];
        let effect = rehearse(request.clone()).await.unwrap();
        assert_eq!(effect.changes.len(), 1, "{}", effect.script.output);
        assert_eq!((effect.management_path, effect.risk), (false, Risk::Medium));
        request.script = b"change route add 203.0.113.0/24 via 10.1.0.7".to_vec();
        let effect = rehearse(request).await.unwrap();
        assert_eq!((effect.management_path, effect.risk), (true, Risk::High));
    });
}

#[test]
fn what_a_script_is_denied_it_hears_and_nothing_happens() {
    in_namespace(async || {
        router();
        let (_folder, world) = device();
        let grants = operations(&GRANTS[..1]);
        let script = "change route del 10.9.0.0/16; echo \"exit $?\"; change file write /etc/shadow </dev/null; echo \"exit $?\"; change reboot; echo \"exit $?\"";
        let (finished, served, inverses) = real(&world, &grants, script).await;
        let output = said(&finished);
        assert!(output.contains("change: route delete 10.9.0.0/16: not granted; the manifest grants 'file write /etc/resolv.conf'\nexit 4\n"), "{output}");
        assert!(
            output.contains("change: file write /etc/shadow: not granted"),
            "{output}"
        );
        assert!(output.contains("change: unknown object 'reboot': route, address, link, rule, neighbour, nft, service, uci, wireguard, sysctl or file\nusage: change"), "{output}");
        assert!(output.ends_with("exit 2\n"), "{output}");
        assert_eq!(
            (served.changes.len(), served.denied.len(), inverses.len()),
            (0, 2, 0)
        );
        assert!(ip("route").contains("10.9.0.0/16"));
    });
}

#[test]
fn two_changes_of_one_script_at_once_are_both_done() {
    in_namespace(async || {
        router();
        let (_folder, world) = device();
        let grants = operations(&[GRANTS[1], GRANTS[3]]);
        let script = "change sysctl net.ipv4.ip_forward=1 & change route replace default via 192.0.2.9 dev wan metric 100 & wait";
        let (finished, served, _) = real(&world, &grants, script).await;
        assert_eq!(finished.end, End::Exited(0), "{}", said(&finished));
        assert_eq!(served.changes.len(), 2, "{}", said(&finished));
    });
}

#[test]
fn a_script_that_fails_or_hangs_in_the_shadow_is_told_as_it_ended() {
    in_namespace(async || {
        router();
        let (_folder, world) = device();
        let effect = shadow(&world, &operations(&GRANTS[..1]), "exit 7")
            .await
            .unwrap();
        assert_eq!(effect.script.end, ScriptEnd::Exited(7));
        let (_scratch, mut request) = request(&world, &[], "sleep 60");
        request.timeout = Duration::from_millis(300);
        let effect = rehearse(request).await.unwrap();
        assert_eq!(effect.script.end, ScriptEnd::TimedOut);
    });
}

#[test]
fn what_can_not_be_rehearsed_is_an_error_that_says_why() {
    in_namespace(async || {
        router();
        let (_folder, world) = device();
        let (_scratch, mut request) = request(&world, &[], "true");
        request.interpreter = "/nonexistent/sh".into();
        let error = rehearse(request.clone()).await.unwrap_err().to_string();
        assert!(error.contains("the script could not be started"), "{error}");
        request.helper = "/nonexistent/aizen".into();
        assert!(matches!(
            rehearse(request).await,
            Err(RehearseError::Start(_))
        ));
    });
}

#[test]
fn bridges_and_their_ports_are_replicated_and_what_is_not_alike_is_said() {
    in_namespace(async || {
        router();
        for command in [
            "link add br0 type bridge",
            "link add port1 type veth peer name portfar",
            "link set port1 master br0",
            "link set port1 up",
            "link set portfar up",
            "link set br0 up",
            "address add 10.50.0.1/24 dev br0",
            "route add 10.60.0.0/16 via 10.50.0.2",
            "tuntap add mode tun name tun9",
        ] {
            ip(command);
        }
        let (_folder, world) = device();
        let grants = operations(&[
            r#"{"route":{"delete":{"dst":"10.60.0.0/16"}}}"#,
            r#"{"link":{"set":{"dev":"br0","up":false}}}"#,
        ]);
        let effect = shadow(
            &world,
            &grants,
            "change route del 10.60.0.0/16 && change link set br0 down",
        )
        .await
        .unwrap();
        assert_eq!(
            effect.script.end,
            ScriptEnd::Exited(0),
            "{}",
            effect.script.output
        );
        assert!(
            effect.changes[0]
                .diff
                .0
                .contains("- 10.60.0.0/16 via 10.50.0.2 dev br0 proto boot"),
            "{:?}",
            effect.changes
        );
        let notes: Vec<&str> = effect.not_rehearsed.iter().map(|t| t.0.as_str()).collect();
        assert!(
            notes.iter().any(|n| n.starts_with("tun9 is a tun link")),
            "{notes:#?}"
        );
    });
}

#[test]
fn a_granted_link_to_a_granted_file_is_rehearsed_as_it_is() {
    in_namespace(async || {
        let (folder, world) = device();
        fs::create_dir(folder.path().join("run")).unwrap();
        fs::rename(
            folder.path().join("etc/resolv.conf"),
            folder.path().join("run/resolv.conf"),
        )
        .unwrap();
        std::os::unix::fs::symlink("../run/resolv.conf", folder.path().join("etc/resolv.conf"))
            .unwrap();
        let grants = operations(&[
            r#"{"file":{"write":"/etc/resolv.conf"}}"#,
            r#"{"file":{"write":"/run/resolv.conf"}}"#,
        ]);
        let script = "echo nameserver 192.0.2.1 | change file write /etc/resolv.conf";
        let effect = shadow(&world, &grants, script).await.unwrap();
        assert_eq!(
            effect.script.end,
            ScriptEnd::Exited(0),
            "{}",
            effect.script.output
        );
        let (_, served, _) = real(&world, &grants, script).await;
        assert_eq!(served.changes, effect.changes);
        assert!(Path::new(&folder.path().join("etc/resolv.conf")).is_symlink());
    });
}

#[test]
fn files_of_the_real_root_are_rehearsed_on_copies() {
    in_namespace(async || {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        let world = World::at("/");
        let grants = operations(&[
            &format!(r#"{{"file":{{"write":"{0}"}}}}"#, path.display()),
            &format!(r#"{{"file":{{"delete":"{0}"}}}}"#, path.display()),
        ]);
        let script = format!(
            "echo a | change file write {0} && change file delete {0}",
            path.display()
        );
        let effect = shadow(&world, &grants, &script).await.unwrap();
        assert_eq!(
            effect.script.end,
            ScriptEnd::Exited(0),
            "{}",
            effect.script.output
        );
        assert_eq!(fs::read(&path).unwrap(), b"nameserver 192.0.2.53\n");
        let checkpoint = take(&world, &grants).await;
        let (_, served, inverses) = real(&world, &grants, &script).await;
        assert_eq!(served.changes, effect.changes);
        assert!(!path.exists());
        assert_same(
            &checkpoint,
            &restore(&world, &checkpoint, &inverses).await.after.unwrap(),
        );
    });
}

#[test]
fn after_a_reboot_files_come_back_and_the_fresh_network_is_left_alone() {
    in_namespace(async || {
        router();
        let (folder, world) = device();
        let grants = operations(GRANTS);
        let checkpoint = take(&world, &grants).await;
        let (finished, _, inverses) = real(&world, &grants, SCRIPT).await;
        assert_eq!(finished.end, End::Exited(0), "{}", said(&finished));
        // What a reboot leaves of the network: nothing of it.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let kept = checkpoint.persistent();
        let restored = restore(&world, &kept, &inverses).await;
        assert!(
            restored.not_restored.is_empty() && restored.drift.is_empty(),
            "{restored:#?}"
        );
        assert_same(&kept, &restored.after.unwrap());
        assert_eq!(
            fs::read_to_string(folder.path().join("etc/resolv.conf")).unwrap(),
            "nameserver 192.0.2.53\nsearch lan\n"
        );
        assert!(!ip("-o link").contains("wan"));
    });
}
