//! Configuration of OpenWrt: changed key by key, put back as a whole, and key by key where somebody else was there too.

use std::fs;
use std::path::PathBuf;

use aizen_agent::broker::{Answer, World};
use aizen_agent::rollback::restore;
use tempfile::TempDir;

use crate::lab::{Run, assert_same, operation, operations, run, take};

const NETWORK: &str = "# kept by a person\n\nconfig interface 'lan'   # ours\n\toption proto static\n\toption ipaddr \"192.168.1.1\"\n\tlist dns '9.9.9.9'\n\nconfig route\n\toption target '10.0.0.0/8'\n";

const SCRIPT: &[&str] = &[
    r#"{"uci":{"set":{"key":"network.lan.ipaddr","value":"10.7.0.1"}}}"#,
    r#"{"uci":{"add_list":{"key":"network.lan.dns","value":"1.1.1.1"}}}"#,
    r#"{"uci":{"set":{"key":"network.guest","value":"interface"}}}"#,
    r#"{"uci":{"set":{"key":"network.guest.proto","value":"dhcp"}}}"#,
    r#"{"uci":{"delete":"network.@route[0]"}}"#,
];

fn device() -> (TempDir, World, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("etc/config")).unwrap();
    let file = folder.path().join("etc/config/network");
    fs::write(&file, NETWORK).unwrap();
    let world = World::at(folder.path());
    (folder, world, file)
}

async fn asked(world: &World, script: &[&str]) -> Run {
    let grants = operations(script);
    let requests: Vec<_> = grants.iter().map(|o| (o.clone(), &b""[..])).collect();
    run(world, &grants, &requests).await
}

#[tokio::test]
async fn from_each_prefix_the_file_comes_back_with_every_remark_and_its_times() {
    for done in 1..=SCRIPT.len() {
        let (_folder, world, file) = device();
        let checkpoint = take(&world, &operations(SCRIPT)).await;
        let times = fs::metadata(&file).unwrap().modified().unwrap();
        let run = asked(&world, &SCRIPT[..done]).await.all_done();
        assert_eq!(run.inverses.len(), done);
        assert_ne!(fs::read_to_string(&file).unwrap(), NETWORK);
        for _ in 0..2 {
            let restored = restore(&world, &checkpoint, &run.inverses).await;
            assert!(
                restored.not_restored.is_empty() && restored.drift.is_empty(),
                "{restored:#?}"
            );
            assert_same(&checkpoint, &restored.after.unwrap());
            assert_eq!(fs::read_to_string(&file).unwrap(), NETWORK, "after {done}");
            assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), times);
        }
    }
}

#[tokio::test]
async fn what_somebody_else_set_in_the_same_file_meanwhile_stays_and_is_named() {
    for done in 1..=SCRIPT.len() {
        let (_folder, world, file) = device();
        let checkpoint = take(&world, &operations(SCRIPT)).await;
        let run = asked(&world, &SCRIPT[..done]).await.all_done();
        let theirs = "\nconfig interface 'theirs'\n\toption proto 'none'\n";
        let now = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            now.replace("option proto static", "option proto 'dhcp'") + theirs,
        )
        .unwrap();
        for _ in 0..2 {
            let restored = restore(&world, &checkpoint, &run.inverses).await;
            assert!(
                restored.not_restored.is_empty(),
                "{:#?}",
                restored.not_restored
            );
            let told = restored
                .drift
                .iter()
                .any(|d| d.0.contains("/etc/config/network"));
            assert!(told, "{:#?}", restored.drift);
            let text = fs::read_to_string(&file).unwrap();
            for stays in [
                "option proto 'dhcp'",
                "config interface 'theirs'",
                "# kept by a person",
            ] {
                assert!(text.contains(stays), "{stays} after {done}: {text}");
            }
            for back in [
                "192.168.1.1",
                "list dns '9.9.9.9'",
                "option target '10.0.0.0/8'",
            ] {
                assert!(text.contains(back), "{back} after {done}: {text}");
            }
            for gone in ["10.7.0.1", "1.1.1.1", "guest"] {
                assert!(!text.contains(gone), "{gone} after {done}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_both_set_is_put_back_and_the_other_hand_is_named() {
    let (_folder, world, file) = device();
    let checkpoint = take(&world, &operations(SCRIPT)).await;
    let run = asked(&world, &SCRIPT[..1]).await.all_done();
    let now = fs::read_to_string(&file).unwrap();
    fs::write(&file, now.replace("10.7.0.1", "10.99.0.1")).unwrap();
    let restored = restore(&world, &checkpoint, &run.inverses).await;
    assert!(restored.not_restored.is_empty(), "{restored:#?}");
    let named = |d: &aizen_protocol::private::Text| d.0.contains("somebody else changed");
    assert!(restored.drift.iter().any(named), "{:#?}", restored.drift);
    assert!(fs::read_to_string(&file).unwrap().contains("192.168.1.1"));
}

#[tokio::test]
async fn what_is_shown_is_the_key_its_owner_and_that_it_waits_for_a_reload() {
    let (_folder, world, _file) = device();
    let run = asked(&world, &SCRIPT[..1]).await.all_done();
    let change = &run.served.changes[0];
    assert_eq!(change.object.0, "network.lan.ipaddr");
    assert_eq!(
        change.diff.0,
        "- network.lan.ipaddr='192.168.1.1'\n+ network.lan.ipaddr='10.7.0.1'\n"
    );
    assert_eq!(
        (change.owner.as_str(), format!("{:?}", change.lasts)),
        ("uci", "ForGood".into())
    );
    let Answer::Done(said) = &run.answers[0] else {
        panic!("{:?}", run.answers)
    };
    assert!(said.contains("not applied until reload"), "{said}");
    let secret = r#"{"uci":{"set":{"key":"network.lan.password","value":"planted"}}}"#;
    let run = asked(&world, &[secret]).await.all_done();
    let shown = format!("{:?} {:?}", run.answers, run.served);
    assert!(
        shown.contains("(secret)") && !shown.contains("planted"),
        "{shown}"
    );
}

#[tokio::test]
async fn what_can_not_be_done_is_said_and_leaves_the_file_alone() {
    let (folder, world, file) = device();
    for (text, says) in [
        (
            r#"{"uci":{"set":{"key":"network.none.x","value":"1"}}}"#,
            "network.none.x: there is no such section",
        ),
        (
            r#"{"uci":{"delete":"network.lan.none"}}"#,
            "network.lan.none: there is no such option",
        ),
        (
            r#"{"uci":{"set":{"key":"wireless.a.b","value":"1"}}}"#,
            "/etc/config/wireless does not exist",
        ),
        (
            r#"{"uci":{"reload":"network"}}"#,
            "not applied until reload: there is no ubus here",
        ),
        (
            r#"{"service":{"restart":"dnsmasq"}}"#,
            "no manager of services answers here",
        ),
    ] {
        let run = asked(&world, &[text]).await;
        let [Answer::Failed(why)] = run.answers.as_slice() else {
            panic!("{text}: {:?}", run.answers)
        };
        assert!(why.contains(says), "{text}: {why}");
        assert!(run.inverses.is_empty(), "{text}");
    }
    fs::create_dir_all(folder.path().join("tmp/.uci")).unwrap();
    fs::write(
        folder.path().join("tmp/.uci/network"),
        "network.lan.mtu='1400'\n",
    )
    .unwrap();
    let pending = asked(&world, &SCRIPT[..1]).await;
    assert!(
        matches!(&pending.answers[0], Answer::Failed(why) if why.contains("are not committed")),
        "{:?}",
        pending.answers
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), NETWORK);
    for own in ["aizen", "aizen-executor.service", "../x", "dbus.socket", ""] {
        let grant = format!(r#"{{"service":{{"stop":"{own}"}}}}"#);
        let run = run(&world, &[], &[(operation(&grant), b"")]).await;
        assert!(
            matches!(run.answers[0], Answer::Refused(_)),
            "{own}: {:?}",
            run.answers
        );
    }
}
