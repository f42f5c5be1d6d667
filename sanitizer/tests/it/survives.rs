//! What an analyst needs comes through untouched.

use crate::{sanitizer, text};

#[test]
fn numbers_units_interfaces_keywords_and_versions_survive() {
    let mut s = sanitizer();
    // Names that are keywords, too, must not eat the keywords.
    text(&mut s, "search router.wan.lan-parts.de\n10.9.9.9 server\n");
    for line in [
        "2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel state UP mode DEFAULT group default qlen 1000",
        "RX: bytes 123456789012 packets 98765432 errors 0 dropped 12",
        "rtt min/avg/max/mdev = 0.031/0.045/0.062/0.012 ms, 3 packets transmitted, 100% loss",
        "Linux version 6.18.0-rc1+deb12 (gcc 12.2.0-14) #1 SMP PREEMPT_DYNAMIC",
        "aizen 0.1.0, kernel 5.15.0, openwrt v23.05.2, firmware 1.2.3.4",
        "/etc/resolv.conf: nameserver missing; net.ipv4.ip_forward = 0",
        "eth0.100@eth0: carrier lost at 14:07:00.123456, uptime 3d 04:05:06",
        "load average: 0.10, 0.20, 0.30; temperature 45.5 C; 1.5ms; 95%",
        "device br-lan entered promiscuous mode, wlan0 authenticated, wan link down",
        "systemd-networkd.service: Main process exited, code=exited, status=1/FAILURE",
        "550e8400-e29b-41d4-a716-446655440000 2026-11-21T14:07:00Z",
        "sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad ok",
        "password required; password authentication failed; secret missing; token expired",
        "std::vector<int> a; agent::collect failed; x86_64-linux-gnu/libc.so.6 main.rs:12:5",
        "1.3.6.1.2.1.2.2.1.10.3 = Counter32: 12",
        "default via 1.1.1.1 dev wan proto static metric 100; 127.0.0.1 localhost",
        "e.g. see section 3.4, i.e. the table; 10-20 of 30; 1-2-3; 2026-11-21",
        "change route replace default via \"$IP_10_83_7_1\" dev wan",
        "server is up, router is reachable, the gateway answers",
        "TCP ESTAB 0 0 *:22; udp/53; 0x1f; 0xdeadbeef; 12345678; port 65535",
        "resolver_dead no_default_route gateway_dead link_down mtu_black_hole",
        "veth12ab34cd@if7: <NO-CARRIER>; enp3s0f1; tun0; wg0; ppp0",
        "messagebus:x:100:102::/nonexistent:/usr/sbin/nologin",
        "kpasswd\t\t464/tcp",
        "# Password aging controls: days between password changes, for encrypting password (default)",
        "/ppp secret add name=lan service=pppoe",
        "PWD=/tmp/x OLDPWD=/",
        "RIP: 0033:0x7f1010c73ab6 ip=0x562e91e1c134",
        "see https://www.iana.org/assignments/service-names",
        "deb http://www.debian.org/debian bookworm main",
        "NetworkManagerDispatcher2Service started; LOWER_UP_AND_RUNNING_1 fine",
    ] {
        assert_eq!(text(&mut s, line), line);
    }
    assert!(s.counts().withheld.is_empty(), "{:?}", s.counts());
}
