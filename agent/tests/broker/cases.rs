//! Every kind of operation on a router: what is asked for, and what `ip` must say of it afterwards.

/// One operation that can be done on the lab's router.
pub(crate) struct Case {
    pub(crate) operation: &'static str,
    /// `ip ARGUMENTS…`, and what its output must hold once it is done.
    pub(crate) shows: (&'static str, &'static str),
}

pub(crate) const CASES: &[Case] = &[
    Case {
        operation: r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
        shows: (
            "route",
            "default via 192.0.2.9 dev wan proto static metric 100",
        ),
    },
    Case {
        operation: r#"{"route":{"add":{"dst":"default","via":"10.1.0.200"}}}"#,
        shows: ("route", "default via 10.1.0.200 dev lan proto static"),
    },
    Case {
        operation: r#"{"route":{"add":{"dst":"172.16.3.4/12","via":"10.1.0.7","dev":"lan","metric":7}}}"#,
        shows: (
            "route",
            "172.16.0.0/12 via 10.1.0.7 dev lan proto static metric 7",
        ),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"10.9.0.0/16"}}}"#,
        shows: ("route", "10.8.0.0/16"),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"10.66.0.0/16"}}}"#,
        shows: ("route", "10.8.0.0/16"),
    },
    Case {
        operation: r#"{"route":{"replace":{"dst":"default","via":"10.1.0.251","dev":"lan","table":100}}}"#,
        shows: (
            "route show table 100",
            "default via 10.1.0.251 dev lan proto static",
        ),
    },
    Case {
        operation: r#"{"route":{"replace":{"dst":"default6","via":"2001:db8:1::9","metric":512}}}"#,
        shows: (
            "-6 route",
            "default via 2001:db8:1::9 dev wan proto static metric 512",
        ),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"2001:db8:99::/48"}}}"#,
        shows: ("-6 route", "2001:db8:1::/64"),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"10.1.0.0/24","dev":"lan"}}}"#,
        shows: ("route", "10.8.0.0/16"),
    },
    Case {
        operation: r#"{"address":{"add":{"address":"10.2.0.1/24","dev":"lan"}}}"#,
        shows: ("-4 address show lan", "10.2.0.1/24"),
    },
    Case {
        operation: r#"{"address":{"add":{"address":"2001:db8:3::1/64","dev":"lan"}}}"#,
        shows: ("-6 address show lan", "2001:db8:3::1/64"),
    },
    // The primary one: its secondary and the route with its source go with it.
    Case {
        operation: r#"{"address":{"delete":{"address":"192.0.2.2/24","dev":"wan"}}}"#,
        shows: ("-o link", "wan"),
    },
    // The last one of its link: all its routes go with it.
    Case {
        operation: r#"{"address":{"delete":{"address":"10.1.0.1/24","dev":"lan"}}}"#,
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"address":{"delete":{"address":"2001:db8:2::1/64","dev":"lan"}}}"#,
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"link":{"set":{"dev":"lan","up":false}}}"#,
        shows: ("-o link show lan", "state DOWN"),
    },
    Case {
        operation: r#"{"link":{"set":{"dev":"wan","mtu":1400}}}"#,
        shows: ("-o link show wan", "mtu 1400"),
    },
    // Below 1280: IPv6 goes off the link, with its addresses, routes and parameters.
    Case {
        operation: r#"{"link":{"set":{"dev":"lan","mtu":1000}}}"#,
        shows: ("-o link show lan", "mtu 1000"),
    },
    Case {
        operation: r#"{"link":{"set":{"dev":"lan","up":false,"mtu":9000}}}"#,
        shows: ("-o link show lan", "mtu 9000"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}"#,
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net/ipv6/conf/lan/disable_ipv6","value":"1"}}}"#,
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv6.conf.all.disable_ipv6","value":"1"}}}"#,
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv6.conf.all.forwarding","value":"1"}}}"#,
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv4.tcp_rmem","value":"4096 100000 500000"}}}"#,
        shows: ("-o link", "lan"),
    },
];
