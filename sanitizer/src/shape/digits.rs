//! Digits without separators, or with few: bare MAC addresses, numbers that are a known address, subscribers' numbers.

use std::net::{IpAddr, Ipv4Addr};

use aizen_protocol::private::Mac;

use super::candidate::{Candidate, Found};
use crate::exchange::Exchange;
use crate::token::TokenKind;

/// Digits without separators: forms of values that were met before, and shapes that are nothing else.
pub(super) fn digits(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let value = c.value();
    let after_0x = c.before().ends_with(b"0x") || c.before().ends_with(b"0X");
    let followed = c.after().first().is_some_and(u8::is_ascii_alphanumeric);
    let glued = followed || c.is_inside_word() && !after_0x;
    // A group of a UUID, or of a longer dashed number.
    let dashes = c.before().last() == Some(&b'-') || c.after().first() == Some(&b'-');
    let goes_on = matches!(c.after(), [b'.', b'0'..=b'9', ..]);
    if glued || dashes || goes_on {
        // The last digits may be the first ones of an address.
        let tail = value.bytes().rev().take_while(u8::is_ascii_digit).count();
        return Found::Nothing(c.end - tail.min(3));
    }
    let swapped = match value.len() {
        8..=10 => number(value, values).or_else(|| hexadecimal4(value, values)),
        12 => {
            // Twelve decimal digits are a counter, and behind 0x they are a pointer, unless that MAC address was met before.
            let is_hex = value.bytes().any(|b| b.is_ascii_alphabetic());
            bare_mac(value)
                .filter(|mac| is_hex && !after_0x || values.knows_mac(*mac))
                .map(|mac| bare(values.mac(mac)))
        }
        15 => is_imei(value)
            .then(|| values.token(TokenKind::Subscriber, value))
            .flatten(),
        19 | 20 => (value.starts_with("89") && value.bytes().all(|b| b.is_ascii_digit()))
            .then(|| values.token(TokenKind::Subscriber, value))
            .flatten(),
        32 => hexadecimal6(value, values),
        _ => None,
    };
    match swapped {
        Some(with) => {
            let upper = value.bytes().any(|b| b.is_ascii_uppercase());
            c.replaced(in_case(with, upper))
        }
        None => c.nothing(),
    }
}

/// A MAC address without separators that was met elsewhere.
pub(crate) fn known_bare_mac(word: &str, values: &mut dyn Exchange) -> Option<String> {
    let mac = bare_mac(word).filter(|mac| values.knows_mac(*mac))?;
    Some(bare(values.mac(mac)))
}

/// A known IPv4 address as one decimal number.
pub(super) fn number(value: &str, values: &mut dyn Exchange) -> Option<String> {
    let address = IpAddr::V4(Ipv4Addr::from_bits(value.parse().ok()?));
    match (values.knows_address(address)).then(|| values.address(address))? {
        IpAddr::V4(a) => Some(a.to_bits().to_string()),
        IpAddr::V6(_) => None,
    }
}

/// A known IPv4 address as eight hexadecimal digits, in network order or as `/proc/net/route` has it.
pub(super) fn hexadecimal4(value: &str, values: &mut dyn Exchange) -> Option<String> {
    let bits = u32::from_str_radix(value, 16)
        .ok()
        .filter(|_| value.len() == 8)?;
    let swap = |bits: u32, values: &mut dyn Exchange| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
        match values
            .knows_address(address)
            .then(|| values.address(address))?
        {
            IpAddr::V4(a) => Some(a.to_bits()),
            IpAddr::V6(_) => None,
        }
    };
    swap(bits, values)
        .or_else(|| swap(bits.swap_bytes(), values).map(u32::swap_bytes))
        .map(|bits| format!("{bits:08x}"))
}

/// A known or link-local IPv6 address as `/proc/net/if_inet6` has it.
pub(super) fn hexadecimal6(value: &str, values: &mut dyn Exchange) -> Option<String> {
    let bits = u128::from_str_radix(value, 16).ok()?;
    let address = IpAddr::V6(bits.into());
    let link_local = bits >> 64 == 0xfe80_0000_0000_0000;
    match (link_local || values.knows_address(address)).then(|| values.address(address))? {
        IpAddr::V6(a) => Some(format!("{:032x}", a.to_bits())),
        IpAddr::V4(_) => None,
    }
}

/// Fifteen digits with a valid check digit (3GPP TS 23.003, Luhn) that begin as issued type codes do.
pub(super) fn is_imei(value: &str) -> bool {
    let sum: u32 = value
        .bytes()
        .rev()
        .enumerate()
        .map(|(n, b)| {
            let digit = u32::from(b.wrapping_sub(b'0'));
            let doubled = digit * 2;
            match n % 2 {
                0 => digit,
                _ => doubled % 10 + doubled / 10,
            }
        })
        .sum();
    let issued = ["01", "35", "86", "99"]
        .iter()
        .any(|p| value.starts_with(p));
    issued && value.bytes().all(|b| b.is_ascii_digit()) && sum.is_multiple_of(10)
}

pub(super) fn phone(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let count = c.value().bytes().filter(u8::is_ascii_digit).count();
    if c.is_inside_word() || !(9..=15).contains(&count) {
        return Found::Nothing(c.start + 1);
    }
    match values.token(TokenKind::Phone, c.value()) {
        Some(token) => c.replaced(token),
        None => c.nothing(),
    }
}

pub(super) fn bare_mac(hex: &str) -> Option<Mac> {
    let bits = u64::from_str_radix(hex, 16)
        .ok()
        .filter(|_| hex.len() == 12)?;
    let [_, _, bytes @ ..] = bits.to_be_bytes();
    Some(Mac(bytes))
}

pub(super) fn bare(mac: Mac) -> String {
    mac.0.iter().map(|b| format!("{b:02x}")).collect()
}

pub(super) fn in_case(text: String, upper: bool) -> String {
    if upper { text.to_uppercase() } else { text }
}

pub(super) fn dotted_mac(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let more_numbers =
        c.after().first() == Some(&b'.') && c.after().get(1).is_some_and(u8::is_ascii_alphanumeric);
    let hex: String = c.value().chars().filter(|d| *d != '.').collect();
    match bare_mac(&hex) {
        Some(mac) if !c.is_inside_word() && !more_numbers && !c.before().ends_with(b".") => {
            let mapped = bare(values.mac(mac));
            let upper = hex.bytes().any(|b| b.is_ascii_uppercase());
            let dotted = format!("{}.{}.{}", &mapped[..4], &mapped[4..8], &mapped[8..]);
            c.replaced(in_case(dotted, upper))
        }
        // A name may begin with what looks like half of one.
        Some(_) | None => Found::Nothing(c.start + 1),
    }
}
