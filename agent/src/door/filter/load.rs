//! What a register of nf_tables holds, and how its values are written.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::door::attribute::text;

/// How values of a kind are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    /// A number in network order.
    Number,
    /// A number in the machine's order.
    Native,
    Name,
    Mac,
    Hex,
    /// IP protocol.
    Protocol,
    /// `NFPROTO_*`.
    Family,
    TcpFlags,
    CtState,
}

/// A loaded value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) mask: Option<Vec<u8>>,
}

impl Load {
    pub(super) fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            mask: None,
        }
    }

    /// A part of the packet (`NFT_PAYLOAD_*`); `l4` is the protocol that an earlier match asked for.
    pub(super) fn payload(base: u32, offset: u32, length: u32, l4: Option<u8>) -> Self {
        let transport = match l4 {
            Some(6) => "tcp",
            Some(17) => "udp",
            Some(132) => "sctp",
            _ => "th",
        };
        let (name, kind) = match (base, offset, length) {
            (0, 0, 6) => ("ether daddr", Kind::Mac),
            (0, 6, 6) => ("ether saddr", Kind::Mac),
            (0, 12, 2) => ("ether type", Kind::Hex),
            (1, 8, 1) => ("ip ttl", Kind::Number),
            (1, 9, 1) => ("ip protocol", Kind::Protocol),
            // nft asks for a whole number of address bytes only, where the prefix allows it.
            (1, 12, 1..=4) => ("ip saddr", Kind::Ipv4),
            (1, 16, 1..=4) => ("ip daddr", Kind::Ipv4),
            (1, 6, 1) => ("ip6 nexthdr", Kind::Protocol),
            (1, 7, 1) => ("ip6 hoplimit", Kind::Number),
            (1, 8, 2..=16) => ("ip6 saddr", Kind::Ipv6),
            (1, 24, 1..=16) => ("ip6 daddr", Kind::Ipv6),
            (2, 0, 2) => return Self::new(format!("{transport} sport"), Kind::Number),
            (2, 2, 2) => return Self::new(format!("{transport} dport"), Kind::Number),
            (2, 13, 1) if l4 == Some(6) => ("tcp flags", Kind::TcpFlags),
            (2, 0, 1) if l4 == Some(1) => ("icmp type", Kind::Number),
            (2, 0, 1) if l4 == Some(58) => ("icmpv6 type", Kind::Number),
            _ => {
                let base = match base {
                    0 => "ll",
                    1 => "nh",
                    2 => "th",
                    _ => "ih",
                };
                let (from, bits) = (u64::from(offset) * 8, u64::from(length) * 8);
                return Self::new(format!("@{base},{from},{bits}"), Kind::Hex);
            }
        };
        Self::new(name, kind)
    }

    /// `NFT_META_*`.
    pub(super) fn meta(key: u32) -> Self {
        let (name, kind) = match key {
            0 => ("meta length", Kind::Native),
            1 => ("meta protocol", Kind::Hex),
            2 => ("meta priority", Kind::Native),
            3 => ("meta mark", Kind::Native),
            4 => ("iif", Kind::Native),
            5 => ("oif", Kind::Native),
            6 => ("iifname", Kind::Name),
            7 => ("oifname", Kind::Name),
            10 => ("meta skuid", Kind::Native),
            11 => ("meta skgid", Kind::Native),
            15 => ("meta nfproto", Kind::Family),
            16 => ("meta l4proto", Kind::Protocol),
            17 => ("ibrname", Kind::Name),
            18 => ("obrname", Kind::Name),
            19 => ("meta pkttype", Kind::Number),
            20 => ("meta cpu", Kind::Native),
            23 => ("meta cgroup", Kind::Native),
            other => return Self::new(format!("meta key {other}"), Kind::Hex),
        };
        Self::new(name, kind)
    }

    /// `NFT_CT_*`; `direction` 1 is the reply.
    pub(super) fn ct(key: u32, direction: Option<u8>) -> Self {
        let (name, kind) = match key {
            0 => ("state", Kind::CtState),
            1 => ("direction", Kind::Number),
            2 => ("status", Kind::Native),
            3 => ("mark", Kind::Native),
            5 => ("expiration", Kind::Native),
            6 => ("helper", Kind::Name),
            8 | 19 => ("ip saddr", Kind::Ipv4),
            9 | 20 => ("ip daddr", Kind::Ipv4),
            10 => ("protocol", Kind::Protocol),
            11 => ("proto-src", Kind::Number),
            12 => ("proto-dst", Kind::Number),
            14 => ("packets", Kind::Native),
            15 => ("bytes", Kind::Native),
            17 => ("zone", Kind::Native),
            21 => ("ip6 saddr", Kind::Ipv6),
            22 => ("ip6 daddr", Kind::Ipv6),
            other => return Self::new(format!("ct key {other}"), Kind::Hex),
        };
        let direction = match direction {
            Some(0) => "original ",
            Some(1) => "reply ",
            _ => "",
        };
        Self::new(format!("ct {direction}{name}"), kind)
    }

    /// `NAME OPERATOR VALUE` as a comparison says it (`NFT_CMP_*`).
    pub(super) fn compared(&self, operator: u32, value: &[u8]) -> String {
        let Self { name, kind, mask } = self;
        let zero = value.iter().all(|byte| *byte == 0);
        let sign = match operator {
            0 => "",
            1 => "!= ",
            2 => "< ",
            3 => "<= ",
            4 => "> ",
            _ => ">= ",
        };
        match mask {
            // "Any of these bits" and "none of these bits".
            Some(mask) if operator == 1 && zero => format!("{name} {}", kind.value(mask)),
            Some(mask) if operator == 0 && zero && self.has_flags() => {
                format!("{name} ! {}", kind.value(mask))
            }
            Some(mask) => match prefix_length(mask).filter(|_| kind.is_address()) {
                Some(length) => format!("{name} {sign}{}/{length}", kind.value(value)),
                None => format!(
                    "{name} & {} == {sign}{}",
                    kind.value(mask),
                    kind.value(value)
                ),
            },
            None if kind.is_address() && value.len() < kind.width() => {
                format!("{name} {sign}{}/{}", kind.value(value), value.len() * 8)
            }
            None if *kind == Kind::Name && !value.contains(&0) && value.len() < IFNAMSIZ => {
                format!("{name} {sign}\"{}*\"", text(value))
            }
            None => format!("{name} {sign}{}", kind.value(value)),
        }
    }

    fn has_flags(&self) -> bool {
        matches!(self.kind, Kind::TcpFlags | Kind::CtState)
    }
}

impl Kind {
    fn is_address(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Ipv6)
    }

    fn width(self) -> usize {
        if self == Self::Ipv4 { 4 } else { 16 }
    }

    /// A value in words. Bytes beyond what the kind has are left out.
    pub(super) fn value(self, bytes: &[u8]) -> String {
        match self {
            Self::Ipv4 => Ipv4Addr::from(padded::<4>(bytes)).to_string(),
            Self::Ipv6 => Ipv6Addr::from(padded::<16>(bytes)).to_string(),
            Self::Number => number(bytes, false).map_or_else(|| hex(bytes), |n| n.to_string()),
            Self::Native => number(bytes, cfg!(target_endian = "little"))
                .map_or_else(|| hex(bytes), |n| n.to_string()),
            Self::Name => format!("\"{}\"", text(bytes)),
            Self::Mac => {
                let bytes: Vec<_> = bytes.iter().take(6).map(|b| format!("{b:02x}")).collect();
                bytes.join(":")
            }
            Self::Hex => hex(bytes),
            Self::Protocol => named(bytes, PROTOCOLS),
            Self::Family => named(bytes, FAMILIES),
            Self::TcpFlags => flags(number(bytes, false), TCP_FLAGS),
            Self::CtState => flags(number(bytes, cfg!(target_endian = "little")), CT_STATES),
        }
    }
}

fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    whole
}

fn number(bytes: &[u8], little: bool) -> Option<u64> {
    let whole: [u8; 8] = {
        let mut whole = [0; 8];
        let room = whole.len().checked_sub(bytes.len())?;
        whole[room..].copy_from_slice(bytes);
        if little {
            whole[room..].reverse();
        }
        whole
    };
    Some(u64::from_be_bytes(whole))
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
    format!("0x{digits}")
}

fn named(bytes: &[u8], names: &[(u64, &str)]) -> String {
    let Some(number) = number(bytes, false) else {
        return hex(bytes);
    };
    let name = names.iter().find(|(known, _)| *known == number);
    name.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

fn flags(set: Option<u64>, names: &[(u64, &str)]) -> String {
    let set = set.unwrap_or_default();
    let known: Vec<_> = names
        .iter()
        .filter(|(bit, _)| set & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if known.is_empty() {
        format!("{set:#x}")
    } else {
        known.join(",")
    }
}

/// The length of a mask that is a prefix.
fn prefix_length(mask: &[u8]) -> Option<u32> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let whole = usize::try_from(ones / 8).ok()?;
    let is_prefix = ones == set && mask.iter().take(whole).all(|byte| *byte == 0xff);
    is_prefix.then_some(ones)
}

const IFNAMSIZ: usize = 16;
const PROTOCOLS: &[(u64, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (89, "ospf"),
    (112, "vrrp"),
    (132, "sctp"),
];
const FAMILIES: &[(u64, &str)] = &[(2, "ipv4"), (10, "ipv6")];
const TCP_FLAGS: &[(u64, &str)] = &[
    (1, "fin"),
    (2, "syn"),
    (4, "rst"),
    (8, "psh"),
    (16, "ack"),
    (32, "urg"),
    (64, "ecn"),
    (128, "cwr"),
];
/// `NF_CT_STATE_BIT` (linux/netfilter/nf_conntrack_common.h).
const CT_STATES: &[(u64, &str)] = &[
    (1, "invalid"),
    (2, "established"),
    (4, "related"),
    (8, "new"),
    (64, "untracked"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_mask_or_shortened_is_a_prefix() {
        let mut load = Load::payload(1, 12, 3, None);
        assert_eq!(load.compared(0, &[192, 0, 2]), "ip saddr 192.0.2.0/24");
        load.mask = Some(vec![255, 255, 240, 0]);
        assert_eq!(
            load.compared(1, &[10, 0, 16, 0]),
            "ip saddr != 10.0.16.0/20"
        );
        load.mask = Some(vec![255, 0, 255, 0]);
        assert!(load.compared(0, &[10, 0, 1, 0]).contains('&'));
    }

    #[test]
    fn states_and_flags_are_named() {
        let mut state = Load::ct(0, None);
        state.mask = Some(6_u32.to_ne_bytes().to_vec());
        assert_eq!(state.compared(1, &[0; 4]), "ct state established,related");
        assert_eq!(state.compared(0, &[0; 4]), "ct state ! established,related");
        let mut flags = Load::payload(2, 13, 1, Some(6));
        flags.mask = Some(vec![18]);
        assert_eq!(flags.compared(0, &[2]), "tcp flags & syn,ack == syn");
    }

    #[test]
    fn a_name_without_its_end_is_a_beginning() {
        assert_eq!(Load::meta(6).compared(0, b"eth"), "iifname \"eth*\"");
        assert_eq!(
            Load::meta(6).compared(0, b"eth0\0\0\0\0"),
            "iifname \"eth0\""
        );
    }
}
