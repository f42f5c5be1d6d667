//! What a round says of resolvers.

use aizen_agent::collect::Settings;
use aizen_protocol::record::{DnsAnswer, DnsProbe, DnsPurpose, DnsTransport};

use crate::daemon::{dnsmasq, unbound};
use crate::netns::{device_and_gateway, root};
use crate::secure::{Ca, GOOD};
use crate::{Pass, ip, see, settings};

/// The only probe of this kind.
fn probe(pass: &Pass, transport: DnsTransport, purpose: DnsPurpose) -> &DnsProbe {
    let found: Vec<_> = pass
        .dns
        .iter()
        .filter(|p| (p.transport, p.purpose) == (transport, purpose))
        .collect();
    let [probe] = found[..] else {
        panic!("{transport:?} {purpose:?}: {:#?}", pass.dns)
    };
    probe
}

fn over_udp(pass: &Pass, purpose: DnsPurpose) -> &DnsProbe {
    probe(pass, DnsTransport::Udp, purpose)
}

#[test]
fn an_honest_resolver_gives_addresses_and_denies_what_does_not_exist() {
    let (device, gateway) = device_and_gateway();
    let _unbound = unbound(&gateway, "");
    let root = root("nameserver 192.0.2.1\n");
    let pass = see(&device, settings(root.path()));
    let lookup = over_udp(&pass, DnsPurpose::Lookup);
    assert_eq!(
        (lookup.answers.as_slice(), lookup.rtt_us.len()),
        (&[DnsAnswer::Rcode(0); 2][..], 2)
    );
    assert_eq!(lookup.addresses, [ip("198.51.100.7")]);
    assert_eq!(
        over_udp(&pass, DnsPurpose::Ipv6).addresses,
        [ip("2001:db8::7")]
    );
    let absent = over_udp(&pass, DnsPurpose::Nonexistent);
    assert_eq!(
        (absent.answers.as_slice(), absent.addresses.len()),
        (&[DnsAnswer::Rcode(3)][..], 0)
    );
    assert!(absent.name.0.ends_with(".www.example"), "{:?}", absent.name);
    assert_eq!(
        pass.dns.len(),
        3,
        "nothing failed, so nothing more is asked"
    );
}

#[test]
fn a_resolver_that_answers_for_every_name_is_caught() {
    let (device, gateway) = device_and_gateway();
    let _liar = dnsmasq(&gateway, "192.0.2.1", &["--address=/#/203.0.113.66"]);
    let root = root("nameserver 192.0.2.1\n");
    let pass = see(&device, settings(root.path()));
    let absent = over_udp(&pass, DnsPurpose::Nonexistent);
    assert_eq!(absent.addresses, [ip("203.0.113.66")]);
    assert!(absent.name.0.ends_with(".example.com"), "{:?}", absent.name);
}

#[test]
fn a_zone_with_a_wildcard_does_not_make_a_resolver_a_liar() {
    let (device, gateway) = device_and_gateway();
    let wildcard =
        "local-zone: \"shop.test.\" redirect\nlocal-data: \"shop.test. 60 IN A 198.51.100.9\"";
    let _unbound = unbound(&gateway, wildcard);
    let root = root("nameserver 192.0.2.1\n");
    let asked = Settings {
        names: vec!["www.shop.test".to_owned()],
        ..settings(root.path())
    };
    let pass = see(&device, asked);
    assert_eq!(
        over_udp(&pass, DnsPurpose::Lookup).addresses,
        [ip("198.51.100.9")]
    );
    assert_eq!(
        over_udp(&pass, DnsPurpose::Nonexistent).answers,
        [DnsAnswer::Rcode(3)]
    );
}

/// unbound with a trust anchor for a zone that is not signed.
pub(crate) const BOGUS: &str = "trust-anchor: \"bogus.test. DS 12345 8 2 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n\
    ede: yes\n\
    local-zone: \"test.\" transparent\n\
    forward-zone:\n name: \"bogus.test.\"\n forward-addr: 192.0.2.3";

#[test]
fn a_name_whose_validation_fails_is_asked_once_more_without() {
    let (device, gateway) = device_and_gateway();
    gateway.ip("address add 192.0.2.3/24 dev isp");
    let _unsigned = dnsmasq(
        &gateway,
        "192.0.2.3",
        &["--address=/bogus.test/198.51.100.9"],
    );
    let _unbound = unbound(&gateway, BOGUS);
    let root = root("nameserver 192.0.2.1\n");
    let asked = Settings {
        names: vec!["www.bogus.test".to_owned()],
        ..settings(root.path())
    };
    let pass = see(&device, asked);
    assert_eq!(
        over_udp(&pass, DnsPurpose::Lookup).answers,
        [DnsAnswer::Rcode(2); 2]
    );
    let unvalidated = over_udp(&pass, DnsPurpose::Unvalidated);
    assert_eq!(unvalidated.answers, [DnsAnswer::Rcode(0)]);
    assert_eq!(unvalidated.addresses, [ip("198.51.100.9")]);
}

#[test]
fn where_udp_is_swallowed_tcp_tells_that_the_resolver_lives() {
    let (device, gateway) = device_and_gateway();
    let _unbound = unbound(&gateway, "");
    gateway.exec(&[
        "nft",
        "add table inet hole; add chain inet hole in { type filter hook input priority 0; }; \
         add rule inet hole in udp dport 53 drop",
    ]);
    let root = root("nameserver 192.0.2.1\n");
    let pass = see(&device, settings(root.path()));
    assert_eq!(
        over_udp(&pass, DnsPurpose::Lookup).answers,
        [DnsAnswer::Timeout; 2]
    );
    let tcp = probe(&pass, DnsTransport::Tcp, DnsPurpose::Lookup);
    assert_eq!(
        (tcp.answers.as_slice(), tcp.addresses.as_slice()),
        (&[DnsAnswer::Rcode(0)][..], &[ip("198.51.100.7")][..])
    );
}

#[test]
fn an_answer_that_was_cut_is_asked_for_again_over_tcp() {
    let (device, gateway) = device_and_gateway();
    let many: String = (1..=60)
        .map(|n| format!("local-data: \"big.example. 60 IN A 198.51.100.{n}\"\n"))
        .collect();
    let _unbound = unbound(&gateway, &many);
    let root = root("nameserver 192.0.2.1\n");
    let asked = Settings {
        names: vec!["big.example".to_owned()],
        ..settings(root.path())
    };
    let pass = see(&device, asked);
    let tcp = probe(&pass, DnsTransport::Tcp, DnsPurpose::Lookup);
    assert_eq!(
        (tcp.answers.as_slice(), tcp.addresses.len()),
        (&[DnsAnswer::Rcode(0)][..], 16)
    );
}

#[test]
fn over_tls_only_the_server_with_the_right_name_is_believed() {
    let (device, gateway) = device_and_gateway();
    let (ca, files) = (Ca::new(), tempfile::tempdir().unwrap());
    let pair = ca.issue(&["dns.example"], GOOD);
    let [key, certificate] =
        [("key", &pair.key_pem), ("crt", &pair.certificate_pem)].map(|(name, pem)| {
            let file = files.path().join(name);
            std::fs::write(&file, pem).unwrap();
            file.display().to_string()
        });
    let _unbound = unbound(
        &gateway,
        &format!(
            "interface: 192.0.2.1@853\ntls-service-key: \"{key}\"\ntls-service-pem: \"{certificate}\""
        ),
    );
    let root = root("nameserver 192.0.2.1\n");
    let asked = |server: &str| Settings {
        dot: vec![
            server.parse().unwrap(),
            "192.0.2.99#dns.example".parse().unwrap(),
        ],
        ..settings(root.path())
    };
    let without = see(&device, asked("192.0.2.1#dns.example"));
    assert!(
        without.gap("dns").unwrap().contains("root certificates"),
        "{:?}",
        without.end
    );
    ca.install(root.path());
    for (server, answer) in [
        ("192.0.2.1#dns.example", DnsAnswer::Rcode(0)),
        ("192.0.2.1#other.example", DnsAnswer::Tls),
        ("192.0.2.1", DnsAnswer::Rcode(0)),
    ] {
        let pass = see(&device, asked(server));
        let tls: Vec<_> = pass
            .dns
            .iter()
            .filter(|p| p.transport == DnsTransport::Tls)
            .collect();
        assert_eq!(tls[0].answers, [answer], "{server}");
        assert!(tls[0].configured && !tls[1].configured);
        // A dead one costs the others nothing.
        assert!(matches!(
            tls[1].answers[0],
            DnsAnswer::Timeout | DnsAnswer::Unreachable
        ));
        assert_eq!(
            over_udp(&pass, DnsPurpose::Lookup).answers,
            [DnsAnswer::Rcode(0); 2]
        );
    }
}
