//! The kernel's messages, without what moves by itself.

use aizen_protocol::private::Mac;

use super::*;

/// `TC_H_ROOT`, `TC_H_INGRESS`.
const ROOT: u32 = 0xFFFF_FFFF;
const INGRESS: u32 = 0xFFFF_FFF1;
/// Where filters of `clsact` hang: `TC_H_MIN_INGRESS`, `TC_H_MIN_EGRESS`.
const CLSACT: [u32; 2] = [0xFFFF_FFF2, 0xFFFF_FFF3];
/// `TCA_KIND`, `TCA_OPTIONS`, `TCA_STAB`, `TCA_INGRESS_BLOCK`, `TCA_EGRESS_BLOCK`.
pub(super) const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const TRAFFIC: [u16; 5] = [KIND, OPTIONS, 8, 13, 14];
/// `TCA_CHAIN`.
const CHAIN: u16 = 11;
/// Disciplines whose classes somebody made; those of others are flows that come and go.
const CLASSFUL: [&str; 5] = ["htb", "hfsc", "drr", "qfq", "ets"];
/// `NHA_ID` to `NHA_ENCAP`, `NHA_FDB`, `NHA_RES_GROUP`.
const NEXT_HOP: [u16; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 11, 12];
/// `RTNH_F_ONLINK`, of the flags the one that is set.
const ONLINK: u32 = 4;
/// `IFF_DEBUG`, `NOARP`, `PROMISC`, `ALLMULTI`, `MULTICAST`, `DYNAMIC`.
pub(super) const FLAGS: u32 = 0x4 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000;
/// `IFLA_TXQLEN`, `LINKMODE`, `IFALIAS`, `GROUP`, `PROTO_DOWN`, `GSO_MAX_SEGS`, `GSO_MAX_SIZE`, `GRO_MAX_SIZE`.
const LINK: [u16; 8] = [13, 17, 20, 27, 39, 40, 41, 58];
/// `IFLA_LINKINFO` with `IFLA_INFO_KIND` and `IFLA_INFO_DATA`.
pub(super) const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// `IFLA_INFO_SLAVE_KIND` and `IFLA_INFO_SLAVE_DATA`.
const PORT_KIND: u16 = 4;
const PORT_DATA: u16 = 5;
/// What can be set of a bridge's port (`IFLA_BRPORT_PRIORITY` to `IFLA_BRPORT_NEIGH_VLAN_SUPPRESS`), without its state and
/// its cost, which follow from the carrier and the speed.
const PORT: [u16; 23] = [
    2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27, 28, 29, 30, 31, 32, 33, 37, 39, 40, 42, 43,
];
/// What a bridge tells of its spanning tree and its timers (`IFLA_BR_ROOT_ID` to `IFLA_BR_GC_TIMER`).
const BRIDGE_MOVES: std::ops::RangeInclusive<u16> = 10..=19;
/// `AF_INET6`: nothing else has labels.
const INET6: u8 = 10;
/// `AF_BRIDGE`.
pub(super) const BRIDGE: u8 = 7;
/// `NDA_DST`, `LLADDR`, `VLAN`, `PORT`, `VNI`, `IFINDEX`, `MASTER`, `SRC_VNI` (linux/neighbour.h).
const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const FORWARDING: [u16; 7] = [NDA_DST, NDA_LLADDR, NDA_VLAN, 6, 7, 8, 11];
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const NTF_MASTER: u8 = 0x04;
const NTF_EXT_LEARNED: u8 = 0x10;
const NTF_STICKY: u8 = 0x40;
/// `BRIDGE_VLANDB_ENTRY` with `_INFO` and `_RANGE`.
const VLAN_ENTRY: u16 = 1;
const VLAN_INFO: u16 = 1;
const VLAN_RANGE: u16 = 2;
/// `BRIDGE_VLAN_INFO_PVID`, `BRIDGE_VLAN_INFO_UNTAGGED`.
const VLAN_FLAGS: u16 = 2 | 4;

/// The fixed header of a question for all of a kind.
pub(super) fn question(kind: Kind) -> Vec<u8> {
    let length = match kind {
        Kind::Link => 16,
        Kind::Vlan | Kind::NextHop => 8,
        Kind::Queue | Kind::QueueClass | Kind::Filter => 20,
        Kind::Label | Kind::Fdb => 12,
    };
    let mut header = vec![0; length];
    header[0] = match kind {
        Kind::Vlan | Kind::Fdb => BRIDGE,
        Kind::Label => INET6,
        _ => 0,
    };
    header
}

/// `struct tcmsg` for what hangs on one interface.
pub(super) fn traffic_question(index: u32, parent: u32) -> Vec<u8> {
    let mut header = question(Kind::Queue);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header
}

/// Where filters may hang because of a discipline.
pub(super) fn ways(queue: &BeyondState) -> Vec<(u32, u32)> {
    let (index, handle) = (u32_at(&queue.header, 4), u32_at(&queue.header, 8));
    match u32_at(&queue.header, 12) {
        INGRESS => CLSACT
            .iter()
            .chain(&[handle])
            .map(|at| (index, *at))
            .collect(),
        _ => vec![(index, handle)],
    }
}

pub(super) fn objects(kind: Kind, payload: &[u8], names: &Names) -> Vec<(BeyondKey, BeyondState)> {
    let length = question(kind).len();
    let Some((header, rest)) = payload.split_at_checked(length) else {
        return Vec::new();
    };
    if kind == Kind::Vlan {
        return vlans(header, rest, names);
    }
    let object = match kind {
        Kind::Link | Kind::Vlan => link(header, rest, names),
        Kind::Fdb => forwarding(header, rest, names),
        Kind::Queue => queue(header, rest, names),
        Kind::QueueClass => class(header, rest, names),
        Kind::Filter => filter(header, rest, names),
        Kind::NextHop => next_hop(header, rest),
        Kind::Label => label(header, rest, names),
    };
    let named = object.map(|(name, state)| (BeyondKey { kind, name }, state));
    named.into_iter().collect()
}

fn kept(rest: &[u8], kinds: &[u16]) -> Attributes {
    let wanted = attributes(rest).filter(|a| kinds.contains(&a.kind));
    let mut kept: Attributes = wanted.map(|a| (a.kind, a.value.to_vec())).collect();
    kept.sort();
    kept
}

fn discipline(rest: &[u8]) -> String {
    find(rest, KIND).map(|kind| kind.text()).unwrap_or_default()
}

fn handle(number: u32) -> String {
    format!("{:x}:{:x}", number >> 16, number & 0xFFFF)
}

fn queue(header: &[u8], rest: &[u8], names: &Names) -> Option<(String, BeyondState)> {
    // The kernel's own have none, and come whenever there is no other.
    if u32_at(header, 8) == 0 {
        return None;
    }
    let dev = names.name(u32_at(header, 4));
    let place = match u32_at(header, 12) {
        ROOT => "root".to_owned(),
        INGRESS => "ingress".to_owned(),
        parent => format!("parent {}", handle(parent)),
    };
    let mut header = header.to_vec();
    // `tcm_info` counts references.
    header[16..20].fill(0);
    let mut attributes = kept(rest, &TRAFFIC);
    if discipline(rest) == "htb" {
        attributes.iter_mut().for_each(as_taken);
    }
    let state = BeyondState {
        header,
        attributes,
        carried: Attributes::new(),
    };
    Some((format!("dev {dev} {place}"), state))
}

/// `struct tc_htb_glob` in `TCA_HTB_INIT`: `direct_pkts`, its last number, counts packets, and of `version`, its first,
/// the kernel tells a longer form than it takes.
fn as_taken((kind, value): &mut (u16, Vec<u8>)) {
    const INIT: u16 = 2;
    const COUNTER: std::ops::Range<usize> = 16..20;
    if *kind != OPTIONS {
        return;
    }
    let mut plain = Vec::new();
    for inner in attributes(value) {
        let mut bytes = inner.value.to_vec();
        if inner.kind == INIT && bytes.len() >= COUNTER.end {
            let version = u32_at(&bytes, 0);
            let major = if version > 0xFFFF {
                version >> 16
            } else {
                version
            };
            bytes[..4].copy_from_slice(&major.to_ne_bytes());
            bytes[COUNTER].fill(0);
        }
        put(&mut plain, inner.kind, &bytes);
    }
    *value = plain;
}

fn class(header: &[u8], rest: &[u8], names: &Names) -> Option<(String, BeyondState)> {
    if !CLASSFUL.contains(&discipline(rest).as_str()) {
        return None;
    }
    let dev = names.name(u32_at(header, 4));
    let name = format!("dev {dev} classid {}", handle(u32_at(header, 8)));
    let mut header = header.to_vec();
    // `tcm_info` is the discipline below, which may be the kernel's own.
    header[16..20].fill(0);
    let state = BeyondState {
        header,
        attributes: kept(rest, &TRAFFIC),
        carried: Attributes::new(),
    };
    Some((name, state))
}

fn filter(header: &[u8], rest: &[u8], names: &Names) -> Option<(String, BeyondState)> {
    let dev = names.name(u32_at(header, 4));
    let info = u32_at(header, 16);
    let name = format!(
        "dev {dev} parent {} pref {} handle {:#x} {}",
        handle(u32_at(header, 12)),
        info >> 16,
        u32_at(header, 8),
        discipline(rest)
    );
    let state = BeyondState {
        header: header.to_vec(),
        attributes: kept(rest, &[KIND, CHAIN]),
        carried: kept(rest, &[OPTIONS]),
    };
    Some((name, state))
}

/// `struct ndmsg` of what was made, not learned.
fn forwarding(header: &[u8], rest: &[u8], names: &Names) -> Option<(String, BeyondState)> {
    let state = u16::from_ne_bytes([header[8], header[9]]);
    if state & (NUD_NOARP | NUD_PERMANENT) == 0 || header[10] & NTF_EXT_LEARNED != 0 {
        return None;
    }
    let address = Mac(*find(rest, NDA_LLADDR)?.value.first_chunk()?);
    let index = u32_at(header, 4);
    let bridge = find(rest, NDA_MASTER).and_then(|a| a.u32());
    let far = find(rest, NDA_DST).and_then(|a| a.ip());
    let way = match (bridge, far) {
        // Its own address and its bridge's come and go with them.
        (Some(bridge), _)
            if [index, bridge]
                .map(|i| names.mac(i))
                .contains(&Some(address)) =>
        {
            return None;
        }
        (Some(_), _) => NTF_MASTER,
        (None, Some(_)) => NTF_SELF,
        // What a network card lets in: groups that it joined, addresses of links above it.
        (None, None) => return None,
    };
    let mut plain = header.to_vec();
    plain[10] = header[10] & NTF_STICKY | way;
    let mut name = format!("dev {} lladdr {address}", names.name(index));
    if let Some(vlan) = find(rest, NDA_VLAN).and_then(|a| a.u16()) {
        name += &format!(" vlan {vlan}");
    }
    if let Some(far) = far {
        name += &format!(" dst {far}");
    }
    let state = BeyondState {
        header: plain,
        attributes: kept(rest, &FORWARDING),
        carried: Attributes::new(),
    };
    Some((name, state))
}

fn next_hop(header: &[u8], rest: &[u8]) -> Option<(String, BeyondState)> {
    let id = find(rest, 1)?.u32()?;
    let mut header = header.to_vec();
    // The scope follows from the rest, and the kernel takes none.
    header[1] = 0;
    let flags = u32_at(&header, 4) & ONLINK;
    header[4..8].copy_from_slice(&flags.to_ne_bytes());
    let state = BeyondState {
        header,
        attributes: kept(rest, &NEXT_HOP),
        carried: Attributes::new(),
    };
    Some((format!("id {id}"), state))
}

fn label(header: &[u8], rest: &[u8], names: &Names) -> Option<(String, BeyondState)> {
    let mut header = header.to_vec();
    // `ifal_seq` counts changes.
    header[8..12].fill(0);
    let address = find(rest, 1).and_then(|a| a.ip());
    let address = address.map_or_else(|| "::".to_owned(), |a| a.to_string());
    let dev = match u32_at(&header, 4) {
        0 => String::new(),
        index => format!(" dev {}", names.name(index)),
    };
    let name = format!("prefix {address}/{}{dev}", header[2]);
    let state = BeyondState {
        header,
        attributes: kept(rest, &[1, 2]),
        carried: Attributes::new(),
    };
    Some((name, state))
}

fn link(header: &[u8], rest: &[u8], names: &Names) -> Option<(String, BeyondState)> {
    let name = names.name(u32_at(header, 4));
    let flags = u32_at(header, 8) & FLAGS;
    let mut plain = header.to_vec();
    plain[8..12].copy_from_slice(&flags.to_ne_bytes());
    plain[12..16].fill(0);
    let mut attributes = kept(rest, &LINK);
    if let Some(info) = find(rest, LINK_INFO) {
        attributes.push((LINK_INFO, link_info(info.value)));
    }
    let state = BeyondState {
        header: plain,
        attributes,
        carried: Attributes::new(),
    };
    Some((name, state))
}

fn link_info(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let kind = find(value, INFO_KIND);
    if let Some(kind) = kind {
        put(&mut plain, INFO_KIND, kind.value);
    }
    if let Some(data) = find(value, INFO_DATA) {
        let bridge = kind.is_some_and(|kind| kind.text() == "bridge");
        let mut settings = Vec::new();
        for setting in data
            .inner()
            .filter(|s| !(bridge && BRIDGE_MOVES.contains(&s.kind)))
        {
            put(&mut settings, setting.kind, setting.value);
        }
        put(&mut plain, INFO_DATA | NESTED, &settings);
    }
    let port = find(value, PORT_KIND).filter(|kind| kind.text() == "bridge");
    if let (Some(kind), Some(data)) = (port, find(value, PORT_DATA)) {
        let mut settings = Vec::new();
        for setting in data.inner().filter(|s| PORT.contains(&s.kind)) {
            put(&mut settings, setting.kind, setting.value);
        }
        put(&mut plain, PORT_KIND, kind.value);
        put(&mut plain, PORT_DATA | NESTED, &settings);
    }
    plain
}

/// One object for each VLAN, whose header is the index and whose one attribute is `struct bridge_vlan_info`.
fn vlans(header: &[u8], rest: &[u8], names: &Names) -> Vec<(BeyondKey, BeyondState)> {
    let index = u32_at(header, 4);
    let dev = names.name(index);
    let mut found = Vec::new();
    for entry in attributes(rest).filter(|entry| entry.kind == VLAN_ENTRY) {
        let Some(info) = find(entry.value, VLAN_INFO) else {
            continue;
        };
        let flags = info.u16().unwrap_or_default() & VLAN_FLAGS;
        let first = info.value.get(2..4).and_then(|b| b.first_chunk());
        let first = first.map_or(0, |two| u16::from_ne_bytes(*two));
        let last = find(entry.value, VLAN_RANGE).and_then(|range| range.u16());
        for id in first..=last.unwrap_or(first).min(4094) {
            let mut info = flags.to_ne_bytes().to_vec();
            info.extend(id.to_ne_bytes());
            let state = BeyondState {
                header: index.to_ne_bytes().to_vec(),
                attributes: vec![(0, info)],
                carried: Attributes::new(),
            };
            let name = format!("dev {dev} vid {id}");
            found.push((
                BeyondKey {
                    kind: Kind::Vlan,
                    name,
                },
                state,
            ));
        }
    }
    found
}
