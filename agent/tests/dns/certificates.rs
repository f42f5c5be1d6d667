//! Certificates with every fault that there is a word for.

use std::fs;
use std::io::Write as _;

use aizen_agent::collect::Settings;
use aizen_agent::identity::DeviceFile;
use aizen_protocol::id::{DeviceId, Epoch};
use aizen_protocol::key::PrivateKey;
use aizen_protocol::record::{Certificate, TlsOutcome};

use crate::daemon::unbound;
use crate::netns::{Netns, device_and_gateway, root};
use crate::secure::{Ca, EXPIRED, GOOD, Pair, TO_COME, listen};
use crate::{Pass, see, settings};

fn look(device: &Netns, ca: &Ca, hosts: &[&str]) -> Vec<Certificate> {
    let root = root("nameserver 192.0.2.1\nnameserver 192.0.2.99\n");
    ca.install(root.path());
    let settings = Settings {
        certificates: hosts
            .iter()
            .map(|h| format!("https://{h}").parse().unwrap())
            .collect(),
        ..settings(root.path())
    };
    see(device, settings).certificates
}

fn silent(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

#[test]
fn each_fault_of_a_certificate_has_its_own_word() {
    let (device, gateway) = device_and_gateway();
    let (ca, stranger) = (Ca::new(), Ca::new());
    let _unbound = unbound(&gateway, "local-data: \"web.example. 60 IN A 192.0.2.1\"");
    let own = ["web.example"];
    let cases = [
        (ca.issue(&own, GOOD), TlsOutcome::Trusted),
        (ca.issue(&own, EXPIRED), TlsOutcome::Expired),
        (ca.issue(&own, TO_COME), TlsOutcome::NotYetValid),
        (ca.issue(&["other.example"], GOOD), TlsOutcome::WrongName),
        (stranger.issue(&own, GOOD), TlsOutcome::UnknownIssuer),
        (Pair::self_signed(&own), TlsOutcome::UnknownIssuer),
        (Pair::self_signed_authority(&own), TlsOutcome::UnknownIssuer),
    ];
    let mut hosts = Vec::new();
    for (n, (pair, _)) in cases.iter().enumerate() {
        pair.serve(&gateway, &format!("192.0.2.1:{}", 4400 + n), silent);
        hosts.push(format!("web.example:{}", 4400 + n));
    }
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let seen = look(&device, &ca, &hosts);
    let outcomes: Vec<_> = seen.iter().map(|c| c.outcome).collect();
    assert_eq!(outcomes, cases.map(|(_, outcome)| outcome), "{seen:#?}");
    let expired = &seen[1];
    assert_eq!(expired.not_after, "2020-01-01T00:00:00Z".parse().ok());
    assert_eq!(expired.issuer.as_ref().unwrap().0, "Test CA");
    assert!(expired.detail.is_some() && seen[0].detail.is_none());
    assert!(
        seen.iter()
            .all(|c| !c.uplink && c.address == "192.0.2.1".parse().ok())
    );
}

#[test]
fn what_speaks_no_tls_or_nothing_at_all_is_no_handshake() {
    let (device, gateway) = device_and_gateway();
    listen(&gateway, "192.0.2.1:22", |mut tcp| {
        tcp.write_all(b"SSH-2.0-server\r\n").ok();
    });
    listen(&gateway, "192.0.2.1:23", |mut tcp| {
        // Longer than any handshake.
        while tcp.write_all(&[0x16; 4096]).is_ok() {}
    });
    let seen = look(
        &device,
        &Ca::new(),
        &[
            "192.0.2.1:22",
            "192.0.2.1:23",
            "192.0.2.1:24",
            "192.0.2.99:443",
            "nowhere.example:443",
        ],
    );
    assert_eq!(seen.len(), 5);
    for certificate in &seen {
        assert_eq!(
            certificate.outcome,
            TlsOutcome::NoHandshake,
            "{certificate:?}"
        );
        assert!(certificate.detail.is_some() && certificate.not_after.is_none());
    }
}

#[test]
fn a_device_without_root_certificates_judges_nobody_and_says_so() {
    let (device, _gateway) = device_and_gateway();
    let root = root("");
    let settings = Settings {
        certificates: vec!["https://192.0.2.1:443".parse().unwrap()],
        ..settings(root.path())
    };
    let pass = see(&device, settings);
    assert!(pass.certificates.is_empty());
    assert!(
        pass.gap("certificates")
            .unwrap()
            .contains("no root certificates")
    );
}

#[test]
fn the_orchestrator_is_judged_by_the_ca_of_the_enrollment() {
    let (device, gateway) = device_and_gateway();
    let (own, other) = (Ca::new(), Ca::new());
    own.issue(&["192.0.2.1"], GOOD)
        .serve(&gateway, "192.0.2.1:8443", silent);
    let root = root("");
    let state = root.path().join("state");
    fs::create_dir_all(state.join("daemon")).unwrap();
    let settings = || Settings {
        state: Some(state.clone()),
        ..settings(root.path())
    };
    let unenrolled = see(&device, settings());
    assert!(unenrolled.certificates.is_empty() && unenrolled.gap("certificates").is_none());
    let file = DeviceFile {
        device: DeviceId::fresh(),
        epoch: Epoch::fresh(),
        server: "wss://192.0.2.1:8443".to_owned(),
        result_key: PrivateKey::generate().unwrap().public(),
    };
    fs::write(
        state.join("device.json"),
        serde_json::to_vec(&file).unwrap(),
    )
    .unwrap();
    let only = |pass: Pass| pass.certificates.into_iter().next().unwrap();
    for (ca, outcome) in [
        (&own, TlsOutcome::Trusted),
        (&other, TlsOutcome::UnknownIssuer),
    ] {
        fs::write(state.join("daemon/ca.crt"), ca.pem()).unwrap();
        let seen = only(see(&device, settings()));
        assert!(seen.uplink && seen.port == 8443);
        assert_eq!(seen.outcome, outcome, "{seen:?}");
    }
    fs::remove_file(state.join("daemon/ca.crt")).unwrap();
    assert!(
        see(&device, settings())
            .gap("certificates")
            .unwrap()
            .contains("ca.crt")
    );
}
