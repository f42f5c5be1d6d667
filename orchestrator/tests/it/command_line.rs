//! The programs of people: keys, trust documents, packages, exit codes.

use std::path::Path;

use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::package::{DeliveryMode, Package};
use tokio::io::AsyncWriteExt as _;

use crate::device::Device;
use crate::fleet::{Fleet, program, succeed};
use crate::story::until_asked;

fn code(output: &std::process::Output) -> Option<i32> {
    output.status.code()
}

fn errors(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn keys(directory: &Path) {
    for key in ["root.key", "anna.key"] {
        succeed(directory, &["key", "new", "--out", key]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_refuses_a_trust_document_that_does_not_name_its_key() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    succeed(path, &["init", "--data", "data", "--name", "aizen.test"]).await;
    keys(path).await;
    let without = program(
        path,
        &["serve", "--data", "data", "--listen", "127.0.0.1:0"],
    )
    .await;
    assert_eq!(code(&without), Some(1));
    assert!(
        errors(&without).contains("no trust document"),
        "{}",
        errors(&without)
    );
    let new = [
        "trust",
        "new",
        "--root",
        "root.key.pub",
        "--approver",
        "anna=anna.key.pub",
        "--orchestrator",
        "anna.key.pub",
        "-o",
        "trust.json",
    ];
    succeed(path, &new).await;
    let serve = [
        "serve",
        "--data",
        "data",
        "--trust",
        "trust.json",
        "--listen",
        "127.0.0.1:0",
    ];
    let unsigned = program(path, &serve).await;
    assert!(
        errors(&unsigned).contains("bad_signature"),
        "{}",
        errors(&unsigned)
    );
    succeed(path, &["trust", "sign", "--key", "root.key", "trust.json"]).await;
    let foreign = program(path, &serve).await;
    assert_eq!(code(&foreign), Some(1));
    assert!(
        errors(&foreign).contains("does not name this orchestrator's key"),
        "{}",
        errors(&foreign)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_signs_once_and_a_stranger_not_at_all() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    keys(path).await;
    let new = [
        "trust",
        "new",
        "--root",
        "root.key.pub",
        "--approver",
        "anna=anna.key.pub",
        "--orchestrator",
        "anna.key.pub",
        "-o",
        "trust.json",
    ];
    succeed(path, &new).await;
    let stranger = program(path, &["trust", "sign", "--key", "anna.key", "trust.json"]).await;
    assert_eq!(code(&stranger), Some(4));
    succeed(path, &["trust", "sign", "--key", "root.key", "trust.json"]).await;
    let twice = program(path, &["trust", "sign", "--key", "root.key", "trust.json"]).await;
    assert_eq!(code(&twice), Some(4));
    let overwriting = program(path, &["key", "new", "--out", "root.key"]).await;
    assert_eq!(code(&overwriting), Some(1));
    let impossible = [
        "trust",
        "new",
        "--root",
        "root.key.pub",
        "--threshold",
        "2",
        "--approver",
        "anna=anna.key.pub",
        "--orchestrator",
        "anna.key.pub",
        "-o",
        "t.json",
    ];
    assert_eq!(code(&program(path, &impossible).await), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_package_is_built_by_hand_signed_and_read_back() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    keys(path).await;
    std::fs::write(path.join("fix.sh"), "change link set wan up\n").unwrap();
    std::fs::write(
        path.join("manifest.json"),
        r#"{"class":"repair","min_isolation":2,"timeout_s":30,"operations":[{"link":{"set":{"dev":"wan","up":true}}}]}"#,
    )
    .unwrap();
    let mut build = vec![
        "package",
        "build",
        "--script",
        "fix.sh",
        "--manifest",
        "manifest.json",
        "--device",
        "dev-1",
        "--epoch",
        "ep-1",
        "--key",
        "anna.key",
        "-o",
        "fix.json",
        "--on-site",
        "--binding",
        "address=10.83.7.1",
    ];
    succeed(path, &build).await;
    let envelope = Envelope::parse(&std::fs::read(path.join("fix.json")).unwrap()).unwrap();
    let anna = aizen_protocol::key::PrivateKey::from_pem(
        &std::fs::read_to_string(path.join("anna.key")).unwrap(),
    )
    .unwrap();
    let opened = envelope
        .open(PayloadType::Package, std::iter::once(&anna.public()))
        .unwrap();
    let package = Package::parse(opened.payload()).unwrap();
    assert_eq!(package.delivery, DeliveryMode::OnSite);
    assert_eq!(package.bindings[0].variable(), "IP_10_83_7_1");
    assert_eq!(package.script.bytes().unwrap(), b"change link set wan up\n");
    let shown = succeed(path, &["package", "inspect", "fix.json"]).await;
    assert!(
        shown.contains("change link set wan up") && shown.contains("risk   high"),
        "{shown}"
    );

    std::fs::write(path.join("manifest.json"), r#"{"class":"root"}"#).unwrap();
    assert_eq!(code(&program(path, &build).await), Some(2));
    build[2] = "--scripts";
    assert_eq!(code(&program(path, &build).await), Some(2));
    std::fs::write(path.join("broken.json"), "{}").unwrap();
    let broken = program(path, &["package", "inspect", "broken.json"]).await;
    assert_eq!(code(&broken), Some(4));
    assert!(
        errors(&broken).contains("malformed_envelope"),
        "{}",
        errors(&broken)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_the_effect_and_is_asked_before_anything_is_signed() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    let id = approval["id"].as_str().unwrap();
    let shown = fleet.command(&["approvals", id]).await;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in [
        "+nameserver 10.83.7.54",
        "/etc/resolv.conf",
        "risk:",
        "Script:",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let unasked = fleet.command(&["approve", id, "--key", "anna.key"]).await;
    assert_eq!(code(&unasked), Some(2), "{}", errors(&unasked));
    assert_eq!(fleet.audited("signed").await, 0);
    let stranger = fleet
        .command(&["approve", id, "--key", "stranger.key", "--yes"])
        .await;
    assert_eq!(code(&stranger), Some(4), "{}", errors(&stranger));
    let denied = fleet.command(&["deny", id, "--reason", "not today"]).await;
    assert_eq!(code(&denied), Some(0), "{}", errors(&denied));
    let case = fleet.case_in_state("denied").await;
    let story = fleet
        .command(&["cases", case["id"].as_str().unwrap()])
        .await;
    let text = String::from_utf8_lossy(&story.stdout).into_owned();
    assert!(
        text.contains("resolver_dead") && text.contains("denied: not today"),
        "{text}"
    );
    for list in ["devices", "cases", "approvals"] {
        let listed = fleet.command(&[list]).await;
        assert_eq!(code(&listed), Some(0), "{}", errors(&listed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_the_device_did_not_sign_is_not_approved() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    let id = approval["id"].as_str().unwrap();
    let approve = async || {
        fleet
            .command(&["approve", id, "--key", "anna.key", "--yes"])
            .await
    };
    let refused = async |why: &str| {
        let answer = approve().await;
        assert_eq!(code(&answer), Some(4), "{}", errors(&answer));
        let said = errors(&answer);
        assert!(said.contains(why), "{why} is missing in {said}");
        assert_eq!(fleet.audited("signed").await, 0);
    };
    let database = rusqlite::Connection::open(fleet.data().database()).unwrap();
    database
        .busy_timeout(std::time::Duration::from_secs(30))
        .unwrap();
    let effect: String = database
        .query_row("SELECT effect FROM approvals WHERE id = ?1", [id], |row| {
            row.get(0)
        })
        .unwrap();
    let set = |text: &str| {
        database
            .execute("UPDATE approvals SET effect = ?2 WHERE id = ?1", [id, text])
            .unwrap()
    };
    // A server that makes an effect look harmless.
    assert!(effect.contains(r#""not_rehearsed":[]"#), "{effect}");
    set(&effect.replace(
        r#""not_rehearsed":[]"#,
        r#""not_rehearsed":["all is well"]"#,
    ));
    refused("another effect than the device signed").await;
    set(&effect);
    // A server that signs in the device's place.
    let known = fleet.path("anna.key.devices");
    let stranger = aizen_protocol::key::PrivateKey::generate()
        .unwrap()
        .public();
    let name = approval["device"].as_str().unwrap();
    let other = serde_json::json!({ name: stranger }).to_string();
    std::fs::write(&known, other).unwrap();
    refused("you know it by").await;
    std::fs::remove_file(&known).unwrap();

    let signed = approve().await;
    assert_eq!(code(&signed), Some(0), "{}", errors(&signed));
    assert!(std::fs::read_to_string(&known).unwrap().contains(name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persons_proposal_is_rehearsed_and_asked_about() {
    let fleet = Fleet::start().await;
    let device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    std::fs::write(fleet.path("fix.sh"), "change link set wan up\n").unwrap();
    std::fs::write(
        fleet.path("m.json"),
        r#"{"class":"repair","min_isolation":2,"timeout_s":30,"operations":[{"link":{"set":{"dev":"wan","up":true}}}]}"#,
    )
    .unwrap();
    let id = device.enrolled.device.as_str();
    let created = fleet
        .json(&[
            "propose",
            "--device",
            id,
            "--script",
            "fix.sh",
            "--manifest",
            "m.json",
            "--intent",
            "bring the link up",
        ])
        .await;
    assert!(created["case"].as_str().unwrap().starts_with("case-"));
    let rehearsal = link.rehearse().await;
    let form = Package::parse(&rehearsal.unverified_payload().unwrap()).unwrap();
    assert_eq!(form.intent, "bring the link up");
    let unknown = fleet
        .command(&[
            "propose",
            "--device",
            "dev-x",
            "--script",
            "fix.sh",
            "--manifest",
            "m.json",
            "--intent",
            "x",
        ])
        .await;
    assert_eq!(code(&unknown), Some(1));
    assert!(
        errors(&unknown).contains("no device dev-x"),
        "{}",
        errors(&unknown)
    );
}

/// Answers the question in a real terminal, made by script(1) of util-linux.
async fn answer_in_a_terminal(fleet: &Fleet, id: &str, answer: &str) -> (Option<i32>, String) {
    let line = format!(
        "{} --data data approve {id} --key anna.key",
        env!("CARGO_BIN_EXE_aizen-orchestrator")
    );
    let mut child = tokio::process::Command::new("script")
        .current_dir(fleet.directory())
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(answer.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_terminal_only_a_typed_yes_signs() {
    let fleet = Fleet::start().await;
    let mut device = Device::enrolled_in(&fleet).await;
    let (mut link, _) = device.connect(&fleet).await;
    let approval = until_asked(&fleet, &mut device, &mut link).await;
    let id = approval["id"].as_str().unwrap();
    for answer in ["\n", "y\n", "no\n", "yes please\n"] {
        let (code, text) = answer_in_a_terminal(&fleet, id, answer).await;
        assert_eq!(code, Some(4), "{answer:?}: {text}");
        assert!(text.contains("nothing was signed"), "{text}");
    }
    assert_eq!(fleet.audited("signed").await, 0);
    let (code, text) = answer_in_a_terminal(&fleet, id, "yes\n").await;
    assert_eq!(code, Some(0), "{text}");
    let asked = text.find("Sign this with key-").unwrap();
    let effect = text.find("+nameserver 10.83.7.54").unwrap();
    assert!(effect < asked, "the effect comes before the question");
    link.deliver().await;
}
