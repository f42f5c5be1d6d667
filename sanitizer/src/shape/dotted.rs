//! Numbers with dots or dashes: IPv4 addresses in all their forms, reverse zones of both families.

use std::net::{IpAddr, Ipv4Addr};

use aizen_protocol::private::Prefix;

use super::candidate::{Candidate, Found};
use crate::exchange::Exchange;
use crate::name::{self, Whole};

pub(super) fn reversed(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    if c.is_inside_word()
        || c.before().ends_with(b".")
            && c.before().len() >= 2
            && c.before()[c.before().len() - 2].is_ascii_digit()
    {
        return c.behind('.');
    }
    let swapped = name::exchange(c.value(), &mut |whole| {
        Some(match whole {
            Whole::Address(a) => Whole::Address(values.address(a)),
            Whole::Network(p) => Whole::Network(values.prefix(p)),
        })
    });
    match swapped {
        Some(with) => c.replaced(with),
        None => c.behind('.'),
    }
}

pub(super) fn percent_dots(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let upper = c.value().contains("%2E");
    let plain = c.value().replace("%2E", ".").replace("%2e", ".");
    match plain.parse::<Ipv4Addr>() {
        Ok(address) => {
            let swapped = values.address(address.into()).to_string();
            c.replaced(swapped.replace('.', if upper { "%2E" } else { "%2e" }))
        }
        Err(_) => c.behind('%'),
    }
}

/// Numbers with dots: an address, one with a port behind a fifth dot (tcpdump), or an object identifier.
pub(super) fn dotted(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let parts: Vec<&str> = c.value().split('.').collect();
    let octets: Vec<u8> = parts.iter().map_while(|p| name::decimal(p)).collect();
    let &[a, b, d, e, ..] = octets.as_slice() else {
        return c.nothing();
    };
    let is_address = match parts.len() {
        4 => true,
        5 => parts[4].parse::<u16>().is_ok(),
        _ => return object_identifier(c, &parts, values),
    };
    if !is_address || is_version(c.before()) {
        return c.nothing();
    }
    let address = Ipv4Addr::new(a, b, d, e);
    let c = &Candidate {
        end: c.start + parts[..4].join(".").len(),
        ..*c
    };
    if let Some((length, end)) = c.length(32) {
        let address = address.into();
        let prefix = values.prefix(Prefix { address, length });
        return Found::Value(c.start..end, prefix.to_string());
    }
    if let (Some(length), true) = (c.mask(), parts.len() == 4) {
        let address = address.into();
        let prefix = values.prefix(Prefix { address, length });
        return c.replaced(prefix.address.to_string());
    }
    match values.address(address.into()) {
        IpAddr::V4(same) if same == address => c.nothing(),
        swapped => c.replaced(swapped.to_string()),
    }
}

/// Rows of the address tables in SNMP's `ip` group end with an address (RFC 4293).
pub(super) fn object_identifier(
    c: &Candidate<'_>,
    parts: &[&str],
    values: &mut dyn Exchange,
) -> Found {
    let tail = parts.len() - 4;
    let is_row = parts.starts_with(&["1", "3", "6", "1", "2", "1", "4"]) && tail >= 9;
    match parts[tail..].join(".").parse::<Ipv4Addr>() {
        Ok(address) if is_row => {
            let start = c.end - address_length(&parts[tail..]);
            Found::Value(start..c.end, values.address(address.into()).to_string())
        }
        Ok(_) | Err(_) => c.nothing(),
    }
}

pub(super) fn address_length(parts: &[&str]) -> usize {
    parts.iter().map(|p| p.len() + 1).sum::<usize>() - 1
}

/// True behind `v` or a word that says "version": four numbers are one, then.
pub(super) fn is_version(before: &[u8]) -> bool {
    let lower: Vec<u8> = before[before.len().saturating_sub(12)..].to_ascii_lowercase();
    let direct = lower
        .strip_suffix(b"v")
        .is_some_and(|l| !l.last().is_some_and(u8::is_ascii_alphanumeric));
    let bare = lower.trim_ascii_end();
    let bare = bare
        .strip_suffix(b":")
        .or(bare.strip_suffix(b"="))
        .unwrap_or(bare);
    direct
        || [&b"version"[..], b"release", b"firmware", b" ver"]
            .iter()
            .any(|w| bare.ends_with(w))
}

/// An address with dashes: inside a word always, alone only if it can't be a list of small numbers.
pub(super) fn dashed(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let part_of_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | 0x80..);
    let bytes = c.text.as_bytes();
    let room_before = c.start - c.from;
    let before = bytes[..c.start]
        .iter()
        .rev()
        .take(room_before.min(LONGEST_LABEL))
        .take_while(|b| part_of_word(b))
        .count();
    let after = bytes[c.end..c.to]
        .iter()
        .take(LONGEST_LABEL)
        .take_while(|b| part_of_word(b))
        .count();
    let word = c.start - before..c.end + after;
    let Some(label) = c.text.get(word.clone()) else {
        return c.nothing();
    };
    let Some((_, address, _)) = name::dashed(label) else {
        return c.nothing();
    };
    let alone = label.len() == c.value().len();
    if alone && address.octets()[0] < 10 && !values.knows_address(address.into()) {
        return c.nothing();
    }
    Found::Value(word, values.certain_name(label))
}

/// A longer word is no label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
