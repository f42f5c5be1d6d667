//! What the kernel counts of IP, ICMP, TCP and UDP (proc_pid_net(5), Documentation/networking/snmp_counter.rst), and its
//! TCP sockets.

pub(crate) mod sockets;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use aizen_protocol::record::Protocols;

use self::sockets::Sockets;
use super::{CollectError, Seen, file};

/// Reads the counters of the calling thread's network namespace and asks for its sockets, which may take `deadline`.
pub(crate) fn collect(root: &Path, deadline: Duration) -> Result<Seen<Protocols>, CollectError> {
    let net = file::proc_net(root);
    let mut counters = BTreeMap::new();
    pairs(
        &file::text(&net.join("snmp"), file::MAX_KERNEL_FILE)?,
        &mut counters,
    );
    let mut gaps = Vec::new();
    match file::text(&net.join("netstat"), file::MAX_KERNEL_FILE) {
        Ok(text) => pairs(&text, &mut counters),
        Err(error) => gaps.push(format!("/proc/net/netstat can't be read: {error}")),
    }
    // A kernel without IPv6 has no such file.
    if let Ok(text) = file::text(&net.join("snmp6"), file::MAX_KERNEL_FILE) {
        single(&text, &mut counters);
    }
    let Sockets {
        states,
        syn_recv_sources,
        waiting,
    } = sockets::see(root, &net, deadline, &mut gaps);
    Ok(Seen {
        value: Protocols {
            counters,
            tcp_states: states,
            syn_recv_sources: u32::try_from(syn_recv_sources.len()).unwrap_or(u32::MAX),
            waiting,
        },
        gaps,
    })
}

/// Lines in pairs, `Tcp: NAME …` and `Tcp: NUMBER …`.
pub(crate) fn pairs(text: &str, counters: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((same, numbers))) =
            (names.split_once(':'), numbers.split_once(':'))
        else {
            return;
        };
        let Some((_, wanted)) = WANTED.iter().find(|(wanted, _)| *wanted == group) else {
            continue;
        };
        if group != same {
            return;
        }
        let numbers = numbers.split_ascii_whitespace();
        for (name, number) in names.split_ascii_whitespace().zip(numbers) {
            if let (true, Ok(number)) = (wanted.contains(&name), number.parse()) {
                counters.insert(format!("{group}.{name}"), number);
            }
        }
    }
}

/// One counter a line, `Ip6InReceives NUMBER`.
pub(crate) fn single(text: &str, counters: &mut BTreeMap<String, u64>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(word), Some(Ok(number))) = (words.next(), words.next().map(str::parse)) else {
            continue;
        };
        for (group, wanted) in WANTED {
            if let Some(name) = word.strip_prefix(group)
                && wanted.contains(&name)
            {
                counters.insert(format!("{group}.{name}"), number);
            }
        }
    }
}

/// The counters that tell one fault from another; a kernel that lacks one tells the others.
const WANTED: &[(&str, &[&str])] = &[
    (
        "Ip",
        &[
            "InReceives",
            "InHdrErrors",
            "InAddrErrors",
            "ForwDatagrams",
            "InDiscards",
            "InDelivers",
            "OutRequests",
            "OutDiscards",
            "OutNoRoutes",
            "ReasmTimeout",
            "ReasmFails",
            "FragFails",
            "FragCreates",
        ],
    ),
    (
        "IpExt",
        &[
            "InNoRoutes",
            "InTruncatedPkts",
            "InMcastPkts",
            "InBcastPkts",
            "InOctets",
            "OutOctets",
            "InCsumErrors",
            "InCEPkts",
        ],
    ),
    (
        "Icmp",
        &[
            "InMsgs",
            "InErrors",
            "InDestUnreachs",
            "InTimeExcds",
            "InRedirects",
            "OutMsgs",
            "OutDestUnreachs",
            "OutTimeExcds",
            "OutRedirects",
        ],
    ),
    (
        "Tcp",
        &[
            "ActiveOpens",
            "PassiveOpens",
            "AttemptFails",
            "EstabResets",
            "CurrEstab",
            "InSegs",
            "OutSegs",
            "RetransSegs",
            "InErrs",
            "OutRsts",
            "InCsumErrors",
        ],
    ),
    (
        "TcpExt",
        &[
            "SyncookiesSent",
            "SyncookiesRecv",
            "SyncookiesFailed",
            "ListenOverflows",
            "ListenDrops",
            "TCPTimeouts",
            "TCPSynRetrans",
            "TCPLostRetransmit",
            "TCPFastRetrans",
            "TCPSpuriousRTOs",
            "TCPRetransFail",
            "TCPBacklogDrop",
            "TCPRcvQDrop",
            "TCPReqQFullDoCookies",
            "TCPReqQFullDrop",
            "TCPAbortOnTimeout",
            "TCPAbortOnMemory",
            "TCPMemoryPressures",
            "TCPTimeWaitOverflow",
            "TCPMTUPFail",
            "TCPMTUPSuccess",
            "TCPMinTTLDrop",
            "PFMemallocDrop",
            "IPReversePathFilter",
            "ArpFilter",
            "OutOfWindowIcmps",
        ],
    ),
    (
        "Udp",
        &[
            "InDatagrams",
            "NoPorts",
            "InErrors",
            "OutDatagrams",
            "RcvbufErrors",
            "SndbufErrors",
            "InCsumErrors",
            "MemErrors",
        ],
    ),
    (
        "Ip6",
        &[
            "InReceives",
            "InHdrErrors",
            "InTooBigErrors",
            "InNoRoutes",
            "InAddrErrors",
            "InDiscards",
            "InTruncatedPkts",
            "InDelivers",
            "OutForwDatagrams",
            "OutRequests",
            "OutDiscards",
            "OutNoRoutes",
            "ReasmTimeout",
            "ReasmFails",
            "FragFails",
        ],
    ),
    (
        "Icmp6",
        &[
            "InMsgs",
            "InErrors",
            "InDestUnreachs",
            "InPktTooBigs",
            "InTimeExcds",
            "InRouterSolicits",
            "InRouterAdvertisements",
            "InNeighborSolicits",
            "InNeighborAdvertisements",
            "InRedirects",
            "OutMsgs",
            "OutDestUnreachs",
            "OutPktTooBigs",
            "OutTimeExcds",
            "OutRouterSolicits",
            "OutNeighborSolicits",
        ],
    ),
    (
        "Udp6",
        &[
            "InDatagrams",
            "NoPorts",
            "InErrors",
            "OutDatagrams",
            "RcvbufErrors",
            "SndbufErrors",
            "InCsumErrors",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wanted_counters_are_told_by_the_kernels_names_and_no_others() {
        let mut counters = BTreeMap::new();
        pairs(
            "Tcp: RtoAlgorithm MaxConn ActiveOpens RetransSegs\nTcp: 1 -1 12 18446744073709551615\n\
             UdpLite: InDatagrams\nUdpLite: 7\nUdp: InDatagrams NoPorts\nUdp: 5\n",
            &mut counters,
        );
        single(
            "Ip6InNoRoutes                   \t3\nIp6InOctets 9\nIcmp6InMsgs x\nUdp6NoPorts 4\n",
            &mut counters,
        );
        let seen: Vec<_> = counters.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        assert_eq!(
            seen,
            [
                ("Ip6.InNoRoutes", 3),
                ("Tcp.ActiveOpens", 12),
                ("Tcp.RetransSegs", u64::MAX),
                ("Udp.InDatagrams", 5),
                ("Udp6.NoPorts", 4),
            ]
        );
    }

    #[test]
    fn this_machine_counts_what_the_faults_need() {
        let seen = collect(Path::new("/"), Duration::from_secs(30)).unwrap();
        for name in [
            "Tcp.RetransSegs",
            "TcpExt.ListenOverflows",
            "TcpExt.SyncookiesSent",
            "TcpExt.IPReversePathFilter",
            "Udp.RcvbufErrors",
            "IpExt.InOctets",
        ] {
            assert!(seen.value.counters.contains_key(name), "{name}");
        }
    }

    #[test]
    fn without_the_first_file_there_is_nothing_to_tell() {
        let root = tempfile::tempdir().unwrap();
        assert!(collect(root.path(), Duration::from_secs(1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(Tcp|Udp|Ip6)?[:a-zA-Z0-9 \n-]{0,200}") {
            let mut counters = BTreeMap::new();
            pairs(&text, &mut counters);
            single(&text, &mut counters);
        }
    }
}
