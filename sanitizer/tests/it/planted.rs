//! Planted private values never come out, whatever stands around them.

use aizen_protocol::package::BindingKind;
use aizen_sanitizer::leak;
use proptest::prelude::*;

use crate::{sanitizer, text};

/// Places for a secret, `@` marks it.
const PLACES: &[&str] = &[
    "option key '@'",
    "\toption password '@'",
    "wireless.wlan0.key='@'",
    "wpa_passphrase=@",
    "psk=\"@\"",
    "wpa-psk @",
    "  key: @\n  password: @",
    "{\"password\":\"@\",\"mtu\":1500}",
    "{\"user\":{\"passphrase\": \"@\"}}",
    "msg=\"{\\\"secret\\\":\\\"@\\\"}\"",
    "<password>@</password>",
    "PrivateKey = @",
    "PresharedKey = @",
    "private-key=\"@\"",
    "username admin password 7 @",
    "username admin privilege 15 secret 9 @",
    "enable secret 5 @",
    "snmp-server community @ RO",
    "set snmp community @",
    "rocommunity @ default",
    "tacacs-server host 10.0.0.1 key 7 @",
    "radius-server key @",
    "crypto isakmp key @ address 10.0.0.1",
    "pre-shared-key ascii-text \"@\"",
    "encrypted-password \"@\"",
    "neighbor 10.0.0.1 password @",
    "ip ospf message-digest-key 1 md5 @",
    "ppp chap password 0 @",
    "set vpn ipsec pre-shared-secret '@'",
    "set system login user x authentication plaintext-password @",
    "https://user:@@host.example/path",
    "Authorization: Bearer @",
    "authorization: Basic @",
    "Cookie: session=@; a=b",
    "GET /x?token=@&a=1 HTTP/1.1",
    "the password is @",
    "db_password: @",
    "DATABASE_PASSWORD=@",
    "api_key = '@'",
    "client_secret=@",
    "access-token: @",
    "curl -u admin:@ http://x",
    "mysql --password @",
    "mysql --password=@",
    "sshpass -p @ ssh x",
];

fn secret_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9]{8,40}".prop_map(|s| format!("q{s}")),
        "[a-z]{6,12}".prop_map(|s| format!("zq{s}")),
        "[A-Za-z0-9+/]{42}".prop_map(|s| format!("z{s}=")),
        "[A-Za-z0-9!#%^*_.+-]{8,20}".prop_map(|s| format!("q{s}Z")),
        "\\$6\\$[a-z]{8}\\$[A-Za-z0-9./]{20,40}",
    ]
}

proptest! {
    #[test]
    fn a_secret_never_survives(
        secret in secret_text(), place in prop::sample::select(PLACES),
        before in "[a-z :=\"'\\n]{0,20}", after in "[a-z :=\"'\\n]{0,20}",
    ) {
        let planted = place.replace("@@", "\u{1}@").replace('@', &secret).replace('\u{1}', "@");
        let planted = if place.contains("@@") { place.replacen('@', &secret, 1) } else { planted };
        let out = text(&mut sanitizer(), &format!("{before}\n{planted}\n{after}"));
        prop_assert!(!out.contains(&secret), "{planted:?} gave {out:?}");
    }

    #[test]
    fn a_token_of_a_known_vendor_never_survives(
        token in prop_oneof!["AKIA[A-Z0-9]{16}", "ghp_[A-Za-z0-9]{36}", "glpat-[A-Za-z0-9_]{20}", "sk-ant-[A-Za-z0-9]{30}",
            "xoxb-[0-9]{12}-[A-Za-z0-9]{20}", "eyJ[A-Za-z0-9]{20}\\.eyJ[A-Za-z0-9]{20}\\.[A-Za-z0-9_]{20}", "AIza[A-Za-z0-9]{35}"],
        before in "[ \"'=(,;:/<]", after in "[ \"').,;>]",
    ) {
        let out = text(&mut sanitizer(), &format!("x{before}{token}{after}y"));
        prop_assert!(!out.contains(&token) && out.contains("[redacted:"), "{out:?}");
    }

    #[test]
    fn an_address_never_survives(
        bits in any::<u32>(), before in "[a-zA-Z_ =:;(\\[{\"'<>@|,/é→\n\t-]{0,12}", after in "[a-zA-Z_ =:;)\\]}\"'<>@|,é→\n\t]{0,12}",
    ) {
        let address = std::net::Ipv4Addr::from_bits(bits).to_string();
        let mut s = sanitizer();
        prop_assume!(s.pseudonym_of(BindingKind::Address, &address).as_deref() != Some(&address));
        // Behind these it is a version, and behind colons a part of something longer.
        let lower = before.to_lowercase();
        prop_assume!(!lower.ends_with('v') && !lower.contains("ver") && !lower.contains("rel") && !before.contains("::"));
        let out = text(&mut s, &format!("{before}{address}{after}"));
        prop_assert!(!out.contains(&address), "{out:?}");
        prop_assert!(!out.contains("[withheld"), "the first pass missed it: {out:?}");
    }

    #[test]
    fn an_ipv6_address_never_survives(
        bits in any::<u128>(), before in "[ =;(\\[{\"'<>@|,/é→\n\t_-]{0,6}", after in "[ =;)\\]}\"'<>@|,é→\n\t-]{0,6}",
    ) {
        let address = std::net::Ipv6Addr::from_bits(bits | 0x2000 << 112).to_string();
        let out = text(&mut sanitizer(), &format!("{before}{address}{after}"));
        prop_assert!(!out.contains(&address), "{out:?}");
        prop_assert!(!out.contains("[withheld"), "the first pass missed it: {out:?}");
    }

    #[test]
    fn a_mac_never_survives(
        bytes in any::<[u8; 6]>(), form in 0..5_usize, before in "[ =;(\\[{\"'<>@|,/é→\n\t]{0,6}", after in "[ =;)\\]}\"'<>@|,/é→\n\t]{0,6}",
    ) {
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let bare = hex.concat();
        let written = match form {
            0 => hex.join(":"),
            1 => hex.join("-"),
            2 => hex.join(":").to_uppercase(),
            3 => format!("{}.{}.{}", &bare[..4], &bare[4..8], &bare[8..]),
            _ => bare.clone(),
        };
        let mut s = sanitizer();
        let real = hex.join(":");
        prop_assume!(s.pseudonym_of(BindingKind::Mac, &real).as_deref() != Some(&real));
        prop_assume!(form != 4 || bare.bytes().any(|b| b.is_ascii_alphabetic()) && bare.bytes().any(|b| b.is_ascii_digit()));
        let out = text(&mut s, &format!("{before}{written}{after}"));
        prop_assert!(!out.contains(&written), "{out:?}");
        prop_assert!(!out.contains("[withheld"), "the first pass missed it: {out:?}");
    }

    #[test]
    fn any_text_is_taken_and_what_comes_out_has_no_secret(input in "\\PC{0,200}") {
        let mut s = sanitizer();
        let out = text(&mut s, &input);
        prop_assert_eq!(leak::secrets(&out), None, "{:?}", out);
        prop_assert!(s.counts().withheld.is_empty(), "{:?} {:?}", input, s.counts());
    }

    #[test]
    fn text_of_values_and_separators_is_never_withheld(
        parts in prop::collection::vec((prop::sample::select(vec![
            "10.1.2.3", "192.168.0.0/24", "fe80::1", "aa:bb:cc:dd:ee:ff", "password", "secret", "anna@acme.com", "nas.acme.com",
            "://", "@", "hostname", "user", "1.2.3.4.5", "v1.2.3.4", "-", ".", "key", "{", "}", "psk", "x", "[", "aabbccddeeff",
            "in-addr.arpa", "%3A", "00", "ff", "$6$abcdefgh$abcdefghijkl", "nas", "ip-10-1-2-3", "anna", "0x0a010203",
        ]), prop::sample::select(vec![" ", "\n", "=", "\"", "'", ",", ";", "(", ")", "|", "\t", " = ", ": ", "] ", "/ "])), 0..24),
    ) {
        let mut s = sanitizer();
        let input: String = parts.iter().flat_map(|(value, separator)| [*value, *separator]).collect();
        let out = text(&mut s, &input);
        prop_assert!(s.counts().withheld.is_empty(), "{:?} gave {:?} {:?}", input, out, s.counts().withheld);
    }
}

#[test]
fn a_private_key_never_survives_even_cut_off() {
    let body = "MC4CAQAwBQYDK2VwBCIEIHx7\nq83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNF\n";
    for (head, foot) in [
        ("-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            "-----END OPENSSH PRIVATE KEY-----",
        ),
        ("-----BEGIN RSA PRIVATE KEY-----\\n", ""),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
            "-----END PGP PRIVATE KEY BLOCK-----",
        ),
    ] {
        let out = text(&mut sanitizer(), &format!("a\n{head}{body}{foot}"));
        assert!(!out.contains("MC4C") && !out.contains("q83v"), "{out}");
        assert!(out.starts_with("a\n[redacted:private-key]"), "{out}");
    }
}

#[test]
fn a_redacted_line_keeps_everything_but_its_secret() {
    for (line, redacted) in [
        (
            "username bob privilege 15 secret 9 $9$abc$defghijkl",
            "username bob privilege 15 secret 9 [redacted:password]",
        ),
        (
            "enable secret 5 hunter22",
            "enable secret 5 [redacted:password]",
        ),
        (
            "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
            "PrivateKey = [redacted:password]",
        ),
        (
            "{\"password\":\"x y\",\"mtu\":1500}",
            "{\"password\":\"[redacted:password]\",\"mtu\":1500}",
        ),
        (
            "{\"pin\":1234,\"mtu\":1500}",
            "{\"pin\":[redacted:pin],\"mtu\":1500}",
        ),
        (
            "https://u:p4ss@example.org/x?token=abc&y=1",
            "https://[redacted:url]@example.org/x?token=[redacted:password]&y=1",
        ),
        (
            "set psk=abc key foo",
            "set psk=[redacted:password] key [redacted:password]",
        ),
        (
            "Authorization: Bearer abcdefghijkl1234",
            "Authorization: Bearer [redacted:api-key]",
        ),
        (
            "psk=\"never closed\nmtu 1500",
            "psk=\"[redacted:password]\nmtu 1500",
        ),
    ] {
        assert_eq!(text(&mut sanitizer(), line), redacted);
    }
}

#[test]
fn numbers_of_people_and_devices_become_typed_tokens() {
    let mut s = sanitizer();
    for (line, private, kind) in [
        ("mail to anna.schmidt@posteo.de now", "schmidt", "[email:"),
        ("call +49 170 1234567 please", "1234567", "[phone:"),
        ("Serial Number: FCW2145L0AB", "FCW2145L0AB", "[serial:"),
        ("serial=8C12AB34", "8C12AB34", "[serial:"),
        ("imei: 490154203237518", "490154203237518", "[subscriber:"),
        (
            "modem 356938035643809 ready",
            "356938035643809",
            "[subscriber:",
        ),
        ("imsi=262011234567890", "262011234567890", "[subscriber:"),
        (
            "sim 8949020000012345678 in",
            "8949020000012345678",
            "[subscriber:",
        ),
        ("latitude: 52.520008", "52.520008", "[coordinates:"),
        ("at 52.52000, 13.40495 now", "13.40495", "[coordinates:"),
        ("Customer No: K-1234567", "1234567", "[account:"),
        ("ESSID:\"Schmidts WLAN\"", "Schmidts", "ssid-"),
        ("option ssid 'Casa Anna'", "Casa", "ssid-"),
        ("option pincode '1234'", "1234", "[redacted:"),
        ("SIM PIN: 4711", "4711", "[redacted:pin]"),
        ("WPS PIN 12345670", "12345670", "[redacted:pin]"),
    ] {
        let out = text(&mut s, line);
        assert!(
            !out.contains(private) && out.contains(kind),
            "{line:?} gave {out:?}"
        );
        if !kind.starts_with("[redacted") {
            assert_eq!(s.reveal_text(&out), line, "back");
        }
    }
}

#[test]
fn names_are_known_by_their_place() {
    let mut s = sanitizer();
    for (line, private) in [
        (
            "Nov 21 14:07:00 annas-router sshd[12]: Failed password for bertram from 10.0.0.9 port 22 ssh2",
            "annas-router",
        ),
        (
            "Nov 21 14:07:00 x sshd[12]: Failed password for invalid user bertram from 10.0.0.9",
            "bertram",
        ),
        (
            "2026-11-21T14:07:00.123Z kellergw dnsmasq 12 - - query",
            "kellergw",
        ),
        (
            "dnsmasq-dhcp[1]: DHCPACK(br-lan) 192.168.1.5 aa:bb:cc:dd:ee:ff Bertrams-Tablet",
            "Bertrams-Tablet",
        ),
        (
            "1700000000 aa:bb:cc:dd:ee:ff 192.168.1.5 Wohnzimmer-TV 01:aa:bb:cc:dd:ee:ff",
            "Wohnzimmer",
        ),
        (
            "192.168.1.9\tbuchhaltung  buchhaltung.schmidt.lan",
            "buchhaltung",
        ),
        ("+192.168.1.9 buchhaltung", "buchhaltung"),
        ("search schmidt-gmbh.intern", "schmidt"),
        ("/home/bertram/.ssh/config", "bertram"),
        ("option hostname 'Keller-AP'", "Keller"),
        ("set system host-name kellergw", "kellergw"),
        ("bertram@kellergw:~$ ip a", "bertram"),
        ("root@kellergw:~# ip a", "kellergw"),
    ] {
        let out = text(&mut s, line);
        assert!(
            !out.contains(private) && out.contains("host-"),
            "{line:?} gave {out:?}"
        );
        assert_eq!(s.reveal_text(&out), line, "back");
    }
}
