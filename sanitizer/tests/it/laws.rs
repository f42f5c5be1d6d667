//! Laws of the keyed mapping, over random values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::package::BindingKind;
use aizen_protocol::private::{Mac, Name, Prefix, Private, PrivateVisitor};
use aizen_sanitizer::Sanitizer;
use proptest::prelude::*;

use crate::{keyed, sanitizer};

/// Addresses as they occur: mostly of one of the kinds, sometimes of any.
fn address4() -> impl Strategy<Value = Ipv4Addr> {
    let kinds = prop::sample::select(vec![
        ([10, 0, 0, 0], 8),
        ([172, 16, 0, 0], 12),
        ([192, 168, 0, 0], 16),
        ([100, 64, 0, 0], 10),
        ([169, 254, 0, 0], 16),
        ([203, 0, 113, 0], 24),
        ([8, 8, 8, 0], 24),
        ([224, 0, 0, 0], 4),
        ([0, 0, 0, 0], 0),
    ]);
    (kinds, any::<u32>()).prop_map(|(([a, b, c, d], length), low): (([u8; 4], u32), u32)| {
        let mask = u32::MAX.checked_shr(length).unwrap_or(0);
        Ipv4Addr::from_bits(Ipv4Addr::new(a, b, c, d).to_bits() | low & mask)
    })
}

fn address6() -> impl Strategy<Value = Ipv6Addr> {
    let nets = prop::sample::select(vec![
        0x2001_0db8_0001_0002_u64,
        0x2a02_1234_5678_9abc,
        0xfe80_0000_0000_0000,
        0xfd12_3456_789a_0001,
        0x2002_c0a8_0101_0001,
        0x2606_4700_4700_0000,
        0xff02_0000_0000_0000,
        0,
    ]);
    let hosts = prop_oneof![
        any::<u64>(),
        (any::<u64>()).prop_map(|h| h & 0xffff_ff00_00ff_ffff | 0xff_fe00_0000),
        0..4_u64,
        any::<u32>().prop_map(|v4| 0xffff_0000_0000 | u64::from(v4)),
        any::<u32>().prop_map(|low| 0x0000_0001_ff00_0000 | u64::from(low) & 0xff_ffff),
    ];
    (nets, hosts)
        .prop_map(|(net, host)| Ipv6Addr::from_bits(u128::from(net) << 64 | u128::from(host)))
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        address4().prop_map(IpAddr::V4),
        address6().prop_map(IpAddr::V6)
    ]
}

/// Two addresses that share a random number of leading bits.
fn neighbours() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    (address(), 0..128_u32, any::<u128>()).prop_map(|(a, keep, noise)| match a {
        IpAddr::V4(x) => {
            let noise = (noise as u32).checked_shr(keep % 33).unwrap_or(0);
            (a, IpAddr::V4(Ipv4Addr::from_bits(x.to_bits() ^ noise)))
        }
        IpAddr::V6(x) => {
            let noise = noise.checked_shr(keep).unwrap_or(0);
            (a, IpAddr::V6(Ipv6Addr::from_bits(x.to_bits() ^ noise)))
        }
    })
}

fn shared_bits(a: IpAddr, b: IpAddr) -> Option<u32> {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some((a.to_bits() ^ b.to_bits()).leading_zeros()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn map(sanitizer: &Sanitizer, real: IpAddr) -> IpAddr {
    let pseudonym = sanitizer.pseudonym_of(BindingKind::Address, &real.to_string());
    pseudonym.unwrap().parse().unwrap()
}

fn prefix(sanitizer: &Sanitizer, real: Prefix) -> Prefix {
    let pseudonym = sanitizer.pseudonym_of(BindingKind::Prefix, &real.to_string());
    pseudonym.unwrap().parse().unwrap()
}

/// What an analyst tells apart.
fn kind(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(a) => {
            let [x, y, ..] = a.octets();
            match (x, y) {
                (10, _) => 1,
                (172, 16..=31) => 2,
                (192, 168) => 3,
                (100, 64..=127) => 4,
                (169, 254) => 5,
                _ if a.is_loopback() => 6,
                _ if a.is_multicast() => 7,
                _ if a.is_documentation() => 8,
                (240.., _) => 9,
                (0, _) => 10,
                _ => 0,
            }
        }
        IpAddr::V6(a) => match a.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => 20,
            [0, 0, 0, 0, 0, 0, 0, 1] => 21,
            [0, 0, 0, 0, 0, 0xffff, ..] => 22,
            [0xfe80, ..] => 23,
            [0xfc00..0xfe00, ..] => 24,
            [0xff00..=0xffff, ..] => 25,
            [0x2001, 0xdb8, ..] => 26,
            [0x2002, ..] => 27,
            _ => 28,
        },
    }
}

fn mac() -> impl Strategy<Value = Mac> {
    prop_oneof![
        any::<[u8; 6]>(),
        any::<[u8; 3]>().prop_map(|[a, b, c]| [0x02, 0, 0, a, b, c]),
        any::<[u8; 3]>().prop_map(|[a, b, c]| [0, 0, 0x5e, a, b, c]),
        any::<[u8; 3]>().prop_map(|[a, b, c]| [0x33, 0x33, 0xff, a, b, c]),
    ]
    .prop_map(Mac)
}

/// Solicited-node multicast is no interface's own address.
fn own_mac() -> impl Strategy<Value = Mac> {
    mac().prop_filter("an interface's own", |m| m.0[0] & 1 == 0)
}

fn map_mac(sanitizer: &Sanitizer, real: Mac) -> Mac {
    let pseudonym = sanitizer.pseudonym_of(BindingKind::Mac, &real.to_string());
    pseudonym.unwrap().parse().unwrap()
}

/// Values of each kind, as a record would hold them.
#[derive(Clone, Debug, serde::Serialize)]
struct Values {
    addresses: Vec<IpAddr>,
    prefixes: Vec<Prefix>,
    macs: Vec<Mac>,
    names: Vec<Name>,
}

impl Private for Values {
    fn visit_private(&mut self, visitor: &mut dyn PrivateVisitor) {
        self.addresses.visit_private(visitor);
        self.prefixes.visit_private(visitor);
        self.macs.visit_private(visitor);
        self.names.visit_private(visitor);
    }
}

fn values() -> impl Strategy<Value = Values> {
    let prefixes = (address(), 0..=32_u8).prop_map(|(address, length)| Prefix { address, length });
    let label = "[a-z][a-z0-9-]{0,20}";
    let names = prop_oneof![
        label.prop_map(Name),
        prop::collection::vec(label, 1..5).prop_map(|l| Name(l.join("."))),
        address4().prop_map(|a| Name(format!("ip-{}.lan", a.to_string().replace('.', "-")))),
    ];
    (
        prop::collection::vec(address(), 0..4),
        prop::collection::vec(prefixes, 0..4),
        prop::collection::vec(mac(), 0..4),
        prop::collection::vec(names, 0..4),
    )
        .prop_map(|(addresses, prefixes, macs, names)| Values {
            addresses,
            prefixes,
            macs,
            names,
        })
}

proptest! {
    #[test]
    fn two_addresses_share_exactly_as_many_bits_as_before((a, b) in neighbours()) {
        let s = sanitizer();
        prop_assert_eq!(shared_bits(a, b), shared_bits(map(&s, a), map(&s, b)));
    }

    #[test]
    fn an_address_keeps_its_kind(a in address()) {
        prop_assert_eq!(kind(a), kind(map(&sanitizer(), a)));
    }

    #[test]
    fn a_prefix_holds_the_same_addresses_as_before((a, b) in neighbours(), length in 0..=128_u8) {
        let s = sanitizer();
        let length = if a.is_ipv4() { length % 33 } else { length };
        let real = Prefix { address: a, length };
        let mapped = prefix(&s, real);
        prop_assert_eq!(mapped.length, length);
        prop_assert_eq!(real.contains(b), mapped.contains(map(&s, b)));
    }

    #[test]
    fn a_network_stays_a_network_and_a_host_a_host(a in address4(), length in 1..=30_u8) {
        let s = sanitizer();
        let host_bits = u32::MAX >> length;
        let network = Prefix { address: Ipv4Addr::from_bits(a.to_bits() & !host_bits).into(), length };
        let is_network = |p: Prefix| matches!(p.address, IpAddr::V4(a) if a.to_bits() & host_bits == 0);
        prop_assert!(is_network(prefix(&s, network)));
        let real = Prefix { address: a.into(), length };
        prop_assert_eq!(is_network(real), is_network(prefix(&s, real)));
        prop_assert!(prefix(&s, network).contains(prefix(&s, real).address));
    }

    #[test]
    fn every_host_of_a_small_network_gets_a_pseudonym_of_its_own(a in address4(), length in 26..=32_u8) {
        let s = sanitizer();
        let host_bits = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let base = a.to_bits() & !host_bits;
        let mut seen: Vec<_> = (0..=host_bits)
            .map(|h| prefix(&s, Prefix { address: Ipv4Addr::from_bits(base | h).into(), length }))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len() as u64, u64::from(host_bits) + 1);
    }

    #[test]
    fn ipv4_inside_ipv6_follows_its_own_pseudonym(a in address4()) {
        let s = sanitizer();
        let IpAddr::V4(mapped) = map(&s, a.into()) else { panic!("family changed") };
        prop_assert_eq!(map(&s, a.to_ipv6_mapped().into()), IpAddr::V6(mapped.to_ipv6_mapped()));
        let nat64 = |v4: Ipv4Addr| IpAddr::V6(Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(v4.to_bits())));
        prop_assert_eq!(map(&s, nat64(a)), nat64(mapped));
        let six_to_four = |v4: Ipv4Addr| u128::from(v4.to_bits()) << 80 | 0x2002 << 112;
        let IpAddr::V6(over) = map(&s, IpAddr::V6(Ipv6Addr::from_bits(six_to_four(a) | 1))) else { panic!("family changed") };
        prop_assert_eq!(over.to_bits() >> 80, six_to_four(mapped) >> 80);
    }

    #[test]
    fn an_interface_identifier_follows_its_mac(m in own_mac(), net in any::<u32>()) {
        let s = sanitizer();
        let eui64 = |Mac([a, b, c, d, e, f]): Mac| u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        let at = |m| IpAddr::V6(Ipv6Addr::from_bits(
            u128::from(0x2a00_0000_0000_0000 | u64::from(net)) << 64 | u128::from(eui64(m)),
        ));
        let IpAddr::V6(mapped) = map(&s, at(m)) else { panic!("family changed") };
        prop_assert_eq!(mapped.to_bits() as u64, eui64(map_mac(&s, m)));
    }

    #[test]
    fn a_mac_keeps_its_group_and_local_bits_and_is_unique(a in mac(), b in mac()) {
        let s = sanitizer();
        let (x, y) = (map_mac(&s, a), map_mac(&s, b));
        prop_assert_eq!(a.0[0] & 3, x.0[0] & 3);
        prop_assert_eq!(a == b, x == y);
    }

    #[test]
    fn the_same_key_gives_the_same_answer_and_another_key_another(v in values()) {
        let a = keyed(1).sanitize_value(v.clone()).unwrap();
        let b = keyed(1).sanitize_value(v.clone()).unwrap();
        let c = keyed(2).sanitize_value(v.clone()).unwrap();
        let json = |v: &Values| serde_json::to_string(v).unwrap();
        prop_assert_eq!(json(a.get()), json(b.get()));
        // A permutation has fixed points: only many free bits make two keys differ for sure.
        let private = v.addresses.iter().any(|a| a.to_string().starts_with("10.") || a.to_string().starts_with("fd12"));
        prop_assert!(!private || json(a.get()) != json(c.get()));
    }

    #[test]
    fn what_was_sanitized_is_revealed(v in values()) {
        let mut s = sanitizer();
        let sanitized = s.sanitize_value(v.clone()).unwrap().into_inner();
        let back = s.reveal_value(sanitized);
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&v).unwrap());
    }

    #[test]
    fn bindings_recompute_without_the_map(v in values()) {
        let mut s = sanitizer();
        let fresh = sanitizer();
        let out = s.sanitize_value(v.clone()).unwrap().into_inner();
        let same = |kind, real: String, pseudonym: String| {
            assert_eq!(fresh.pseudonym_of(kind, &real).as_ref(), Some(&pseudonym));
            assert_eq!(s.reveal(kind, &pseudonym), Some(real));
        };
        for (r, p) in v.addresses.iter().zip(&out.addresses) { same(BindingKind::Address, r.to_string(), p.to_string()); }
        for (r, p) in v.prefixes.iter().zip(&out.prefixes) { same(BindingKind::Prefix, r.to_string(), p.to_string()); }
        for (r, p) in v.macs.iter().zip(&out.macs) { same(BindingKind::Mac, r.to_string(), p.to_string()); }
        for (r, p) in v.names.iter().zip(&out.names) { same(BindingKind::Name, r.to_string(), p.to_string()); }
    }

    #[test]
    fn different_names_get_different_pseudonyms(a in "[a-z0-9.-]{1,30}", b in "[a-z0-9.-]{1,30}") {
        let s = sanitizer();
        let of = |name: &str| s.pseudonym_of(BindingKind::Name, name).unwrap();
        prop_assert_eq!(a == b, of(&a) == of(&b));
    }
}

#[test]
fn what_belongs_to_nobody_stays() {
    let s = sanitizer();
    for address in [
        "0.0.0.0",
        "127.0.0.1",
        "127.0.0.53",
        "255.255.255.255",
        "255.255.255.0",
        "0.0.0.255",
        "224.0.0.1",
        "224.0.0.251",
        "239.255.255.250",
        "8.8.8.8",
        "1.1.1.1",
        "9.9.9.9",
        "::",
        "::1",
        "ff02::1",
        "ff02::fb",
        "ff02::1:2",
        "2606:4700:4700::1111",
    ] {
        assert_eq!(map(&s, address.parse().unwrap()).to_string(), address);
        assert_eq!(
            s.reveal(BindingKind::Address, address).as_deref(),
            Some(address)
        );
    }
    for net in [
        "0.0.0.0/0",
        "::/0",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fe80::/64",
        "fe80::/10",
        "ff00::/8",
        "128.0.0.0/1",
        "0.0.0.0/1",
        "224.0.0.0/4",
        "100.64.0.0/10",
        "2000::/3",
        "127.0.0.0/8",
    ] {
        assert_eq!(prefix(&s, net.parse().unwrap()).to_string(), net);
        assert_eq!(s.reveal(BindingKind::Prefix, net).as_deref(), Some(net));
    }
    for mac in [
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "01:80:c2:00:00:0e",
        "33:33:00:00:00:01",
        "00:00:5e:00:01:0a",
    ] {
        assert_eq!(map_mac(&s, mac.parse().unwrap()).to_string(), mac);
    }
}

#[test]
fn a_pseudonym_that_was_never_given_out_is_not_revealed() {
    let s = sanitizer();
    assert_eq!(s.reveal(BindingKind::Address, "10.1.2.3"), None);
    assert_eq!(s.reveal(BindingKind::Prefix, "10.1.2.0/24"), None);
    assert_eq!(s.reveal(BindingKind::Mac, "02:00:00:00:00:01"), None);
    assert_eq!(s.reveal(BindingKind::Name, "host-aaaaaaaaaaaaa"), None);
    assert_eq!(s.reveal(BindingKind::Name, "annas-laptop"), None);
    assert_eq!(s.reveal(BindingKind::Address, "not an address"), None);
}
