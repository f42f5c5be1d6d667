use proptest::prelude::*;

use super::*;

fn manifest(operations: &str) -> Manifest {
    let text = format!(
        r#"{{"class":"repair","min_isolation":2,"timeout_s":30,"operations":{operations}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn canonical(operations: &str) -> Vec<Operation> {
    resolve_grants(&manifest(operations), &BTreeMap::new()).unwrap()
}

#[test]
fn ways_of_writing_one_route_are_one_grant() {
    let grants = canonical(
        r#"[{"route":{"add":{"dst":"default","via":"192.0.2.1"}}},
                {"route":{"add":{"dst":"0.0.0.0/0","via":"192.0.2.1","table":254,"metric":0}}},
                {"route":{"add":{"dst":"192.0.2.77/0","via":"192.0.2.1","table":0}}}]"#,
    );
    assert_eq!(grants.len(), 1, "{grants:?}");
    let v6 = canonical(
        r#"[{"route":{"add":{"dst":"default","via":"fe80::1","dev":"wan"}}},
                {"route":{"add":{"dst":"default6","via":"fe80:0:0::1","dev":"wan","metric":1024}}},
                {"route":{"add":{"dst":"::/0","via":"fe80::1","dev":"wan"}}}]"#,
    );
    assert_eq!(v6.len(), 1, "{v6:?}");
}

#[test]
fn ways_of_writing_one_parameter_are_one_grant() {
    let grants = canonical(
        r#"[{"sysctl":{"set":{"key":"net.ipv4.tcp_rmem","value":"1 2 3"}}},
                {"sysctl":{"set":{"key":"net/ipv4/tcp_rmem","value":" 1\t2  3\n"}}}]"#,
    );
    assert_eq!(grants.len(), 1, "{grants:?}");
}

#[test]
fn a_variable_becomes_its_value_and_nothing_else() {
    let manifest =
        manifest(r#"[{"route":{"replace":{"dst":"default","via":"$IP_A","dev":"wan"}}}]"#);
    let grants = resolve_grants(&manifest, &values(&[("IP_A", "192.0.2.1")])).unwrap();
    assert_eq!(
        grants,
        canonical(r#"[{"route":{"replace":{"dst":"default","via":"192.0.2.1","dev":"wan"}}}]"#)
    );
    assert_eq!(
        resolve_grants(&manifest, &BTreeMap::new()),
        Err(Reason::UnknownBinding)
    );
    for bad in ["$IP_A", "wan", "192.0.2.1; reboot", "192.0.2.0/24", ""] {
        assert_eq!(
            resolve_grants(&manifest, &values(&[("IP_A", bad)])),
            Err(Reason::BindingMismatch),
            "{bad}"
        );
    }
}

#[test]
fn what_is_no_operation_is_refused_before_it_is_granted() {
    for text in [
        r#"[{"route":{"add":{"dst":"default"}}}]"#,
        r#"[{"route":{"add":{"dst":"default","dev":"wan","table":255}}}]"#,
        r#"[{"route":{"add":{"dst":"10.0.0.0/33","dev":"wan"}}}]"#,
        r#"[{"route":{"add":{"dst":"10.0.0.0/8","via":"::1"}}}]"#,
        r#"[{"route":{"add":{"dst":"default","dev":"../../x"}}}]"#,
        r#"[{"address":{"add":{"address":"10.0.0.1/8","dev":"averyveryverylongname"}}}]"#,
        r#"[{"link":{"set":{"dev":"wan"}}}]"#,
        r#"[{"link":{"set":{"dev":"wan","mtu":67}}}]"#,
        r#"[{"sysctl":{"set":{"key":"kernel.core_pattern","value":"|/bin/sh"}}}]"#,
        r#"[{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":""}}}]"#,
        r#"[{"file":{"write":"/etc/../etc/shadow"}}]"#,
        r#"[{"file":{"write":"etc/hosts"}}]"#,
        r#"[{"file":{"delete":"/etc/./hosts"}}]"#,
        r#"[{"file":{"delete":"/etc//hosts"}}]"#,
        r#"[{"file":{"delete":"/etc/"}}]"#,
        r#"[{"file":{"delete":"/"}}]"#,
    ] {
        assert_eq!(
            resolve_grants(&manifest(text), &BTreeMap::new()),
            Err(Reason::MalformedPayload),
            "{text}"
        );
    }
}

fn an_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|a| IpAddr::from(Ipv4Addr::from(a))),
        any::<u128>().prop_map(|a| IpAddr::from(Ipv6Addr::from(a)))
    ]
}

pub(crate) fn an_operation() -> impl Strategy<Value = Operation> {
    let route = (
        an_address(),
        0u8..=128,
        proptest::option::of(an_address()),
        proptest::option::of("[a-z]{1,6}"),
        proptest::option::of(0u32..300),
        proptest::option::of(any::<u32>()),
        0..3u8,
    )
        .prop_map(|(dst, length, via, dev, table, metric, verb)| {
            let route = Route {
                dst: Value(format!("{dst}/{length}")),
                via: via.map(|v| Value(v.to_string())),
                dev,
                table,
                metric,
            };
            Operation::Route(match verb {
                0 => RouteOperation::Add(route),
                1 => RouteOperation::Replace(route),
                _ => RouteOperation::Delete(route),
            })
        });
    let address = (an_address(), 0u8..=128, "[a-z0-9.]{1,15}").prop_map(|(a, length, dev)| {
        Operation::Address(AddressOperation::Add(Address {
            address: Value(format!("{a}/{length}")),
            dev,
        }))
    });
    let link = (
        "[a-z]{1,5}",
        proptest::option::of(any::<bool>()),
        proptest::option::of(any::<u32>()),
    )
        .prop_map(|(dev, up, mtu)| Operation::Link(LinkOperation::Set(Link { dev, up, mtu })));
    let sysctl = ("net[./][a-z./]{1,20}", "[ -~\t]{0,20}")
        .prop_map(|(key, value)| Operation::Sysctl(SysctlOperation::Set(Sysctl { key, value })));
    let file = "/?[a-z./]{0,12}".prop_map(|path| Operation::File(FileOperation::Write(path)));
    prop_oneof![route, address, link, sysctl, file]
}

proptest! {
    #[test]
    fn normalising_twice_is_normalising_once(operation in an_operation()) {
        if let Ok(exact) = Exact::try_from(&operation) {
            let once = Operation::from(&exact);
            let again = Exact::try_from(&once).unwrap();
            prop_assert_eq!(&exact, &again);
            prop_assert_eq!(once, Operation::from(&again));
        }
    }

    #[test]
    fn any_text_in_any_place_is_an_operation_or_an_error_and_never_a_panic(a in ".{0,40}", b in ".{0,40}") {
        let route = Route { dst: Value(a.clone()), via: Some(Value(b.clone())), dev: Some(b.clone()), table: None, metric: None };
        for operation in [
            Operation::Route(RouteOperation::Add(route)),
            Operation::Address(AddressOperation::Add(Address { address: Value(a.clone()), dev: b.clone() })),
            Operation::Sysctl(SysctlOperation::Set(Sysctl { key: a.clone(), value: b })),
            Operation::File(FileOperation::Write(a)),
        ] {
            drop(Exact::try_from(&operation));
        }
    }

    #[test]
    fn operations_that_differ_in_meaning_are_different_grants(a in 0u32..4, b in 0u32..4, metric_a in 0u32..3, metric_b in 0u32..3) {
        let route = |last: u32, metric: u32| {
            let route = Route { dst: Value("default".into()), via: Some(Value(format!("192.0.2.{last}"))), dev: None, table: None, metric: Some(metric) };
            Exact::try_from(&Operation::Route(RouteOperation::Replace(route))).unwrap()
        };
        prop_assert_eq!(route(a, metric_a) == route(b, metric_b), a == b && metric_a == metric_b);
    }
}
