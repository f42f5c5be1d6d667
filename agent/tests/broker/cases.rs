//! Every kind of operation on a router: what is asked for, and what the tools that people know must say of it
//! afterwards.

/// One operation that can be done on the lab's router.
pub(crate) struct Case {
    pub(crate) operation: &'static str,
    /// What comes with it.
    pub(crate) content: &'static str,
    /// `ip ARGUMENTS…` or `nft ARGUMENTS…`, and what its output must hold once it is done.
    pub(crate) shows: (&'static str, &'static str),
}

pub(crate) const CASES: &[Case] = &[
    Case {
        operation: r#"{"route":{"replace":{"dst":"default","via":"192.0.2.9","dev":"wan","metric":100}}}"#,
        content: "",
        shows: (
            "route",
            "default via 192.0.2.9 dev wan proto static metric 100",
        ),
    },
    Case {
        operation: r#"{"route":{"add":{"dst":"default","via":"10.1.0.200"}}}"#,
        content: "",
        shows: ("route", "default via 10.1.0.200 dev lan proto static"),
    },
    Case {
        operation: r#"{"route":{"add":{"dst":"172.16.3.4/12","via":"10.1.0.7","dev":"lan","metric":7}}}"#,
        content: "",
        shows: (
            "route",
            "172.16.0.0/12 via 10.1.0.7 dev lan proto static metric 7",
        ),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"10.9.0.0/16"}}}"#,
        content: "",
        shows: ("route", "10.8.0.0/16"),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"10.66.0.0/16"}}}"#,
        content: "",
        shows: ("route", "10.8.0.0/16"),
    },
    Case {
        operation: r#"{"route":{"replace":{"dst":"default","via":"10.1.0.251","dev":"lan","table":100}}}"#,
        content: "",
        shows: (
            "route show table 100",
            "default via 10.1.0.251 dev lan proto static",
        ),
    },
    Case {
        operation: r#"{"route":{"replace":{"dst":"default6","via":"2001:db8:1::9","metric":512}}}"#,
        content: "",
        shows: (
            "-6 route",
            "default via 2001:db8:1::9 dev wan proto static metric 512",
        ),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"2001:db8:99::/48"}}}"#,
        content: "",
        shows: ("-6 route", "2001:db8:1::/64"),
    },
    Case {
        operation: r#"{"route":{"delete":{"dst":"10.1.0.0/24","dev":"lan"}}}"#,
        content: "",
        shows: ("route", "10.8.0.0/16"),
    },
    Case {
        operation: r#"{"address":{"add":{"address":"10.2.0.1/24","dev":"lan"}}}"#,
        content: "",
        shows: ("-4 address show lan", "10.2.0.1/24"),
    },
    Case {
        operation: r#"{"address":{"add":{"address":"2001:db8:3::1/64","dev":"lan"}}}"#,
        content: "",
        shows: ("-6 address show lan", "2001:db8:3::1/64"),
    },
    // The primary one: its secondary and the route with its source go with it.
    Case {
        operation: r#"{"address":{"delete":{"address":"192.0.2.2/24","dev":"wan"}}}"#,
        content: "",
        shows: ("-o link", "wan"),
    },
    // The last one of its link: all its routes go with it.
    Case {
        operation: r#"{"address":{"delete":{"address":"10.1.0.1/24","dev":"lan"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"address":{"delete":{"address":"2001:db8:2::1/64","dev":"lan"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"link":{"set":{"dev":"lan","up":false}}}"#,
        content: "",
        shows: ("-o link show lan", "state DOWN"),
    },
    Case {
        operation: r#"{"link":{"set":{"dev":"wan","mtu":1400}}}"#,
        content: "",
        shows: ("-o link show wan", "mtu 1400"),
    },
    // Below 1280: IPv6 goes off the link, with its addresses, routes and parameters.
    Case {
        operation: r#"{"link":{"set":{"dev":"lan","mtu":1000}}}"#,
        content: "",
        shows: ("-o link show lan", "mtu 1000"),
    },
    Case {
        operation: r#"{"link":{"set":{"dev":"lan","up":false,"mtu":9000}}}"#,
        content: "",
        shows: ("-o link show lan", "mtu 9000"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv4.ip_forward","value":"1"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net/ipv6/conf/lan/disable_ipv6","value":"1"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv6.conf.all.disable_ipv6","value":"1"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv6.conf.all.forwarding","value":"1"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"sysctl":{"set":{"key":"net.ipv4.tcp_rmem","value":"4096 100000 500000"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"rule":{"add":{"priority":900,"from":"10.2.0.0/16","to":"203.0.113.7","iif":"lan","fwmark":16,"table":100}}}"#,
        content: "",
        shows: (
            "rule",
            "900:\tfrom 10.2.0.0/16 to 203.0.113.7 fwmark 0x10 iif lan lookup 100",
        ),
    },
    // The first of two of one priority: the order comes back too.
    Case {
        operation: r#"{"rule":{"delete":{"priority":1000,"from":"10.1.0.0/24","table":100}}}"#,
        content: "",
        shows: ("rule", "from 10.5.0.0/24 lookup 100"),
    },
    Case {
        operation: r#"{"rule":{"add":{"priority":950,"oif":"wan","table":1000,"ipv6":true}}}"#,
        content: "",
        shows: ("-6 rule", "950:\tfrom all oif wan lookup 1000"),
    },
    Case {
        operation: r#"{"neighbour":{"replace":{"address":"10.1.0.78","lladdr":"02:00:00:00:00:78","dev":"lan"}}}"#,
        content: "",
        shows: (
            "neighbour show nud permanent",
            "10.1.0.78 dev lan lladdr 02:00:00:00:00:78 PERMANENT",
        ),
    },
    Case {
        operation: r#"{"neighbour":{"replace":{"address":"10.1.0.77","lladdr":"02:00:00:00:00:79","dev":"lan"}}}"#,
        content: "",
        shows: (
            "neighbour show nud permanent",
            "10.1.0.77 dev lan lladdr 02:00:00:00:00:79 PERMANENT",
        ),
    },
    Case {
        operation: r#"{"neighbour":{"delete":{"address":"10.1.0.77","dev":"lan"}}}"#,
        content: "",
        shows: ("-o link", "lan"),
    },
    Case {
        operation: r#"{"nft":{"replace_table":{"family":"inet","name":"guard"}}}"#,
        content: "table inet guard {\n\tchain in {\n\t\ttype filter hook input priority 0; policy accept;\n\t\ttcp dport 23 drop\n\t}\n}\n",
        shows: ("nft list table inet guard", "tcp dport 23 drop"),
    },
    Case {
        operation: r#"{"nft":{"replace_table":{"family":"ip","name":"fresh"}}}"#,
        content: "table ip fresh {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.66 }\n\t}\n}\n",
        shows: ("nft list table ip fresh", "192.0.2.66"),
    },
    // Interfaces that are nowhere but here.
    Case {
        operation: r#"{"nft":{"replace_table":{"family":"netdev","name":"early"}}}"#,
        content: "table netdev early {\n\tchain in {\n\t\ttype filter hook ingress device \"wan\" priority 0; policy accept;\n\t}\n}\n",
        shows: ("nft list table netdev early", "hook ingress device \"wan\""),
    },
    Case {
        operation: r#"{"nft":{"delete_table":{"family":"inet","name":"guard"}}}"#,
        content: "",
        shows: ("nft list tables", "ip other"),
    },
];
