//! Every form of one value becomes the same form of one pseudonym.

use aizen_protocol::package::BindingKind;

use crate::{sanitizer, text};

#[test]
fn every_form_of_an_ipv4_address_follows_one_pseudonym() {
    let mut s = sanitizer();
    let real = "192.168.77.5";
    let p = s.pseudonym_of(BindingKind::Address, real).unwrap();
    let o: Vec<u8> = p.split('.').map(|o| o.parse().unwrap()).collect();
    let bits = u32::from_be_bytes([o[0], o[1], o[2], o[3]]);
    for (from, to) in [
        ("host 192.168.77.5 up", format!("host {p} up")),
        ("192.168.77.5:8080", format!("{p}:8080")),
        (
            "192.168.77.5.53 > 192.168.77.5.40000:",
            format!("{p}.53 > {p}.40000:"),
        ),
        ("[192.168.77.5]", format!("[{p}]")),
        ("src=192.168.77.5,", format!("src={p},")),
        ("addr:192.168.77.5 x", format!("addr:{p} x")),
        ("192.168.077.005", p.clone()),
        ("::ffff:192.168.77.5", format!("::ffff:{p}")),
        ("192%2E168%2E77%2E5", p.replace('.', "%2E")),
        (
            "5.77.168.192.in-addr.arpa",
            format!("{}.{}.{}.{}.in-addr.arpa", o[3], o[2], o[1], o[0]),
        ),
        ("ip-192-168-77-5", format!("ip-{}", p.replace('.', "-"))),
        ("3232255237", bits.to_string()),
        ("0xC0A84D05", format!("0x{bits:08X}")),
        ("054DA8C0", format!("{:08X}", bits.swap_bytes())),
        ("A\u{1b}[1m192.168.77.5\u{1b}[0m", format!("A{p}")),
        (
            "http://192.168.77.5/x?y=192.168.77.5",
            format!("http://{p}/x?y={p}"),
        ),
        ("x_192.168.77.5_y", format!("x_{p}_y")),
    ] {
        assert_eq!(text(&mut s, from), to);
        assert_eq!(
            s.reveal_text(&to),
            from.replace("\u{1b}[1m", "")
                .replace("\u{1b}[0m", "")
                .replace("077.005", "77.5"),
            "back"
        );
    }
}

#[test]
fn networks_in_text_are_networks() {
    let mut s = sanitizer();
    let p = s
        .pseudonym_of(BindingKind::Prefix, "192.168.77.0/24")
        .unwrap();
    let net = p.strip_suffix("/24").unwrap();
    assert!(net.ends_with(".0"));
    assert_eq!(
        text(&mut s, "192.168.77.0/24 dev lan"),
        format!("{p} dev lan")
    );
    assert_eq!(
        text(&mut s, "ip route 192.168.77.0 255.255.255.0 Null0"),
        format!("ip route {net} 255.255.255.0 Null0")
    );
    assert_eq!(
        text(&mut s, "default via 0.0.0.0/0 ::/0"),
        "default via 0.0.0.0/0 ::/0"
    );
    let zone: Vec<_> = net.split('.').collect();
    assert_eq!(
        text(&mut s, "zone 77.168.192.in-addr.arpa"),
        format!("zone {}.{}.{}.in-addr.arpa", zone[2], zone[1], zone[0])
    );
}

#[test]
fn every_form_of_a_mac_follows_one_pseudonym() {
    let mut s = sanitizer();
    let real = "a4:5e:60:c1:02:9f";
    let p = s.pseudonym_of(BindingKind::Mac, real).unwrap();
    let bare = p.replace(':', "");
    for (from, to) in [
        (
            "lladdr a4:5e:60:c1:02:9f STALE",
            format!("lladdr {p} STALE"),
        ),
        (
            "HWaddr A4:5E:60:C1:02:9F",
            format!("HWaddr {}", p.to_uppercase()),
        ),
        ("a4-5e-60-c1-02-9f", p.replace(':', "-")),
        (
            "a45e.60c1.029f",
            format!("{}.{}.{}", &bare[..4], &bare[4..8], &bare[8..]),
        ),
        ("mac a45e60c1029f,", format!("mac {bare},")),
        ("a4%3A5e%3A60%3Ac1%3A02%3A9f", p.replace(':', "%3A")),
        (
            "client id 01:a4:5e:60:c1:02:9f",
            format!("client id 01:{p}"),
        ),
        ("addr:a4:5e:60:c1:02:9f", format!("addr:{p}")),
    ] {
        assert_eq!(text(&mut s, from), to);
        assert_eq!(s.reveal_text(&to), from, "back");
    }
    let six = s
        .pseudonym_of(BindingKind::Address, "fe80::a65e:60ff:fec1:29f")
        .unwrap();
    assert_eq!(
        text(&mut s, "fe80::a65e:60ff:fec1:29f%eth0"),
        format!("{six}%eth0")
    );
}

#[test]
fn every_form_of_an_ipv6_address_follows_one_pseudonym() {
    let mut s = sanitizer();
    let p = s
        .pseudonym_of(BindingKind::Address, "2a02:8070::42")
        .unwrap();
    for (from, to) in [
        ("from 2a02:8070::42: icmp", format!("from {p}: icmp")),
        ("[2a02:8070::42]:443", format!("[{p}]:443")),
        ("2A02:8070:0:0:0:0:0:42", p.to_uppercase()),
        ("2a02%3A8070%3A%3A42", p.replace(':', "%3A")),
        ("src:2a02:8070::42", format!("src:{p}")),
        ("IP6 2a02:8070::42.443 >", format!("IP6 {p}.443 >")),
    ] {
        assert_eq!(text(&mut s, from), to);
    }
    let nibbles = |address: &str| {
        let bits = address.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
        (0..32)
            .map(|n| format!("{:x}.", bits >> (4 * n) & 15))
            .collect::<String>()
            + "ip6.arpa"
    };
    assert_eq!(text(&mut s, &nibbles("2a02:8070::42")), nibbles(&p));
    let net = s
        .pseudonym_of(BindingKind::Prefix, "2a02:8070::/32")
        .unwrap();
    assert_eq!(text(&mut s, "2a02:8070::/32 via"), format!("{net} via"));
}

#[test]
fn names_are_the_same_in_fields_and_in_text() {
    let mut s = sanitizer();
    let name = "nas7.fritz-family.de";
    let p = s.pseudonym_of(BindingKind::Name, name).unwrap();
    assert_eq!(
        text(&mut s, "lookup of nas7.fritz-family.de failed"),
        format!("lookup of {p} failed")
    );
    assert_eq!(text(&mut s, "NAS7.Fritz-Family.de."), format!("{}.", p));
    let label = p.split('.').next().unwrap().to_owned();
    assert_eq!(
        text(&mut s, "nas7 is up"),
        format!("{label} is up"),
        "learned from the longer name"
    );
    assert_eq!(
        s.reveal_text(&format!("x {p} y {label}")),
        "x nas7.fritz-family.de y nas7"
    );
}

#[test]
fn a_learned_name_is_found_inside_a_word() {
    let mut s = sanitizer();
    let out = text(
        &mut s,
        "Accepted password for annalena from 10.1.2.3\nlease for Annalenas-iPhone and ANNALENA",
    );
    assert!(!out.to_lowercase().contains("annalena"), "{out}");
    assert!(s.reveal_text(&out).contains("Annalenas-iPhone"), "{out}");
}

#[test]
fn a_pseudonym_in_a_text_stays_recognisable() {
    let mut s = sanitizer();
    let p = text(&mut s, "gw.smith-home.com");
    assert_eq!(
        text(&mut s, &format!("rejected: {p}")),
        format!("rejected: {p}")
    );
}
