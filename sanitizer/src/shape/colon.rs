//! Groups with colons: IPv6 and MAC addresses, plain or percent-encoded, and fingerprints.

use std::net::{IpAddr, Ipv6Addr};

use aizen_protocol::private::{Mac, Prefix};

use super::candidate::{Candidate, Found};
use super::digits::in_case;
use crate::exchange::Exchange;
use crate::token::TokenKind;

pub(super) fn percent_colons(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let upper = c.value().contains("%3A");
    let plain = c.value().replace("%3A", ":").replace("%3a", ":");
    let swapped = match (plain.parse::<Mac>(), plain.parse::<Ipv6Addr>()) {
        (Ok(mac), _) => values.mac(mac).to_string(),
        (_, Ok(address)) => values.address(address.into()).to_string(),
        _ => return c.behind('%'),
    };
    c.replaced(swapped.replace(':', if upper { "%3A" } else { "%3a" }))
}

/// Two-digit groups: a MAC address, an EUI-64, a DHCP client identifier (RFC 2132 section 9.14), or a fingerprint.
pub(super) fn groups(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let value = c.value();
    let separator = char::from(value.as_bytes()[2]);
    if c.before().last().is_some_and(u8::is_ascii_alphanumeric) {
        return c.behind(separator);
    }
    // The last group may be the first half of a word ("…:ff" of "…:ffoo").
    if c.after().first().is_some_and(u8::is_ascii_alphanumeric) {
        return c.behind(separator);
    }
    let bytes: Vec<u8> = value
        .split(separator)
        .filter_map(|g| u8::from_str_radix(g, 16).ok())
        .collect();
    let upper = value.bytes().any(|b| b.is_ascii_uppercase());
    let write = |bytes: &[u8]| {
        let parts: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        in_case(parts.join(&separator.to_string()), upper)
    };
    match *bytes.as_slice() {
        [a, b, d, e, f, g] => c.replaced(write(&values.mac(Mac([a, b, d, e, f, g])).0)),
        [kind, a, b, d, e, f, g] => {
            let mac = values.mac(Mac([a, b, d, e, f, g])).0;
            c.replaced(write(&[&[kind][..], &mac].concat()))
        }
        [a, b, d, 0xff, 0xfe, e, f, g] => {
            let [a, b, d, e, f, g] = values.mac(Mac([a, b, d, e, f, g])).0;
            c.replaced(write(&[a, b, d, 0xff, 0xfe, e, f, g]))
        }
        _ => match values.token(TokenKind::Fingerprint, value) {
            Some(token) => c.replaced(token),
            None => c.nothing(),
        },
    }
}

pub(super) fn address6(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let value = c.value();
    let starts_inside = c.before().last().is_some_and(|b| b.is_ascii_alphanumeric());
    let word_follows = c
        .after()
        .first()
        .is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if starts_inside {
        return c.behind(':');
    }
    // A sentence's colon may follow the address.
    let shorter = value.strip_suffix(':').unwrap_or(value);
    let parsed = value
        .parse()
        .map(|a: Ipv6Addr| (a, value))
        .or_else(|_| shorter.parse().map(|a| (a, shorter)));
    let Ok((address, written)) = parsed else {
        return c.behind(':');
    };
    // `ab::cd` in a longer word is a path of some program.
    let is_path = word_follows && !written.bytes().any(|b| b.is_ascii_digit());
    if is_path && written.len() == value.len() {
        return c.behind(':');
    }
    let c = &Candidate {
        end: c.start + written.len(),
        ..*c
    };
    // Numbers between colons, and a path: a line of passwd(5).
    let path_follows = matches!(c.after(), [b'/', b'a'..=b'z' | b'A'..=b'Z', ..]);
    if c.before().ends_with(b":") && written.ends_with("::") && path_follows {
        return c.nothing();
    }
    match c.length(128) {
        Some((length, end)) => {
            let prefix = values.prefix(Prefix {
                address: address.into(),
                length,
            });
            Found::Value(c.start..end, prefix.to_string())
        }
        None => {
            let swapped = values.address(address.into());
            if swapped == IpAddr::V6(address) {
                // What stays, stays as it was written.
                return c.nothing();
            }
            let upper = written.bytes().any(|b| b.is_ascii_uppercase());
            c.replaced(in_case(swapped.to_string(), upper))
        }
    }
}
