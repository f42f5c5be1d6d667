//! A second, independent look at what is about to leave. It shares no pattern with the first pass: it reads bytes by
//! hand and asks one question, "is this value one that we made, or one that stays?". What it catches is a bug of the
//! first pass: the record is withheld and counted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aizen_protocol::private::{Mac, Name, Prefix, PrivateVisitor, Text};

use crate::exchange::Backward;
use crate::{vocabulary, word};

/// Looks for secrets in plain text; needs no key, so that a receiver can look, too. Gives the kind of the first one.
#[must_use]
pub fn secrets(text: &str) -> Option<&'static str> {
    marker(text)
        .or_else(|| keyed_value(text))
        .or_else(|| url_password(text))
}

/// Looks for addresses and MAC addresses that are no pseudonyms, and for secrets that are recognisable by themselves.
pub(crate) fn in_serialised(text: &str, known: Backward<'_>) -> Option<&'static str> {
    marker(text)
        .or_else(|| dotted_quads(text, known))
        .or_else(|| colon_groups(text, known))
        .or_else(|| bare_macs(text, known))
}

/// Looks at free text for everything.
pub(crate) fn in_text(text: &str, known: Backward<'_>) -> Option<&'static str> {
    secrets(text)
        .or_else(|| in_serialised(text, known))
        .or_else(|| learned_names(text, known))
        .or_else(|| mail(text))
}

/// Looks at the private fields of a value.
pub(crate) struct Fields<'a> {
    pub(crate) known: Backward<'a>,
    pub(crate) caught: Option<&'static str>,
}

impl PrivateVisitor for Fields<'_> {
    fn address(&mut self, _: &mut IpAddr) {}
    fn prefix(&mut self, _: &mut Prefix) {}
    fn mac(&mut self, _: &mut Mac) {}
    fn name(&mut self, value: &mut Name) {
        let is_real = |label: &str| {
            let label = label.to_lowercase();
            let stays = vocabulary::is_top_level(&label) || vocabulary::is_second_level(&label);
            !stays
                && !vocabulary::is_common(&label)
                && self.known.map.labels.pseudonym(label.as_str()).is_some()
                && self.known.map.labels.real(label.as_str()).is_none()
        };
        if self.caught.is_none() && value.0.split('.').any(is_real) {
            self.caught = Some("name");
        }
    }
    fn text(&mut self, value: &mut Text) {
        if self.caught.is_none() {
            self.caught = in_text(&value.0, self.known);
        }
    }
}

fn dotted_quads(text: &str, known: Backward<'_>) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len()
            && (bytes[at].is_ascii_digit()
                || bytes[at] == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit))
        {
            at += 1;
        }
        let run = &text[start..at];
        let parts: Vec<&str> = run.splitn(6, '.').collect();
        let mut octets = [0; 4];
        let complete = (4..=5).contains(&parts.len())
            && octets.iter_mut().zip(&parts).all(|(octet, part)| {
                let value = part.parse().ok().filter(|_| part.len() <= 3);
                *octet = value.unwrap_or(0);
                value.is_some()
            });
        if !complete || parts.len() == 5 && parts[4].parse::<u16>().is_err() {
            continue;
        }
        let after = &bytes[at..];
        if is_nibbles(&bytes[..start], after) || is_in_ipv6(text, start, at) {
            continue;
        }
        if after.len() >= 13 && after[..13].eq_ignore_ascii_case(b".in-addr.arpa") {
            octets.reverse();
        }
        let address = IpAddr::V4(Ipv4Addr::from(octets));
        if !says_version(&bytes[..start]) && !is_ours(address, after, known) {
            return Some("address");
        }
    }
    None
}

/// True in the middle of `….ip6.arpa`, where single digits with dots are no IPv4 address.
fn is_nibbles(before: &[u8], after: &[u8]) -> bool {
    let part = |b: &u8| b.is_ascii_alphanumeric() || *b == b'.';
    let behind = after.iter().take_while(|b| part(b)).take(80).count();
    let zone = after[..behind].to_ascii_lowercase();
    let zone = zone.strip_suffix(b".").unwrap_or(&zone);
    (zone.ends_with(b".ip6.arpa") || zone == b".ip6.arpa")
        && before.iter().rev().take_while(|b| part(b)).take(80).count() + behind > 9
}

/// True for the last 32 bits of an IPv6 address: the whole address is looked at elsewhere.
fn is_in_ipv6(text: &str, start: usize, end: usize) -> bool {
    let part = |b: &u8| b.is_ascii_hexdigit() || *b == b':';
    let before = text.as_bytes()[..start]
        .iter()
        .rev()
        .take(40)
        .take_while(|b| part(b))
        .count();
    let whole = text.get(start - before..end).unwrap_or_default();
    (2..40).contains(&before) && whole.parse::<Ipv6Addr>().is_ok()
}

fn is_ours(address: IpAddr, after: &[u8], known: Backward<'_>) -> bool {
    if known.real_address(address).is_some() {
        return true;
    }
    let digits: Vec<u8> = after
        .strip_prefix(b"/")
        .unwrap_or_default()
        .iter()
        .copied()
        .take_while(u8::is_ascii_digit)
        .collect();
    match std::str::from_utf8(&digits)
        .ok()
        .and_then(|d| d.parse().ok())
    {
        Some(length) if known.real_prefix(Prefix { address, length }).is_some() => true,
        // The network of a mask that stands behind it.
        Some(_) | None => {
            let of = |length| Prefix { address, length };
            known.map.prefixes.has_between(&of(0), &of(128))
        }
    }
}

fn says_version(before: &[u8]) -> bool {
    let near = String::from_utf8_lossy(&before[before.len().saturating_sub(12)..]).to_lowercase();
    let word = near.trim_end_matches([' ', '\t', '\n', '\r', ':', '=']);
    ["version", "release", "firmware", " ver"]
        .iter()
        .any(|w| word.ends_with(w))
        || near.ends_with('v')
            && !near
                .trim_end_matches('v')
                .ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn colon_groups(text: &str, known: Backward<'_>) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let part = |b: &u8| b.is_ascii_hexdigit() || *b == b':' || *b == b'.';
    let mut at = 0;
    while at < bytes.len() {
        if !part(&bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().take_while(|b| part(b)).count();
        let run = &text[at..at + length];
        let glued = at > 0 && bytes[at - 1].is_ascii_alphanumeric();
        let after = bytes
            .get(at + length)
            .is_some_and(u8::is_ascii_alphanumeric);
        at += length;
        if after || run.bytes().filter(|b| *b == b':').count() < 2 {
            continue;
        }
        let run = match (glued, run.split_once(':')) {
            (true, Some((_, rest))) => rest,
            (true, None) => continue,
            (false, _) => run,
        };
        // Numbers between colons, and a path: a line of passwd(5).
        if run.ends_with("::") && matches!(bytes[at..], [b'/', b'a'..=b'z' | b'A'..=b'Z', ..]) {
            continue;
        }
        // A word or a length may be glued in front, a full stop or colon behind.
        let trimmed = run.trim_end_matches('.');
        let tries = [
            Some(run),
            Some(trimmed),
            trimmed.strip_suffix(':'),
            run.split_once(':').map(|(_, rest)| rest),
            Some(run.trim_start_matches(|c: char| c.is_ascii_digit())),
        ];
        let ours: Vec<(&str, bool)> = tries
            .into_iter()
            .flatten()
            .filter_map(|t| {
                let mac = t
                    .parse::<Mac>()
                    .map(|m| ("mac", known.real_mac(m).is_some()));
                mac.ok().or_else(|| {
                    let address = t.parse::<Ipv6Addr>().ok()?;
                    Some(("address", is_ours(address.into(), &bytes[at..], known)))
                })
            })
            .collect();
        if let (Some((kind, _)), false) = (ours.first(), ours.iter().any(|(_, ours)| *ours)) {
            return Some(kind);
        }
    }
    None
}

/// MAC addresses without colons: only real ones that the map knows, or any dozen of digits would be one.
fn bare_macs(text: &str, known: Backward<'_>) -> Option<&'static str> {
    let pieces = text.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != '-');
    let is_real = |piece: &str| {
        let hex: String = piece.chars().filter(char::is_ascii_hexdigit).collect();
        let bits = u64::from_str_radix(&hex, 16)
            .ok()
            .filter(|_| hex.len() == 12);
        bits.is_some_and(|bits| {
            let [_, _, bytes @ ..] = bits.to_be_bytes();
            let mac = Mac(bytes);
            known.map.macs.pseudonym(&mac).is_some() && known.map.macs.real(&mac).is_none()
        })
    };
    pieces
        .filter(|p| (12..=17).contains(&p.len()))
        .any(is_real)
        .then_some("mac")
}

fn learned_names(text: &str, known: Backward<'_>) -> Option<&'static str> {
    let labels = &known.map.labels;
    if labels.is_empty() {
        return None;
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    text.split(|c| !is_word(c))
        .filter(|w| w.len() >= 3 && !w.bytes().all(|b| b.is_ascii_digit()))
        .map(word::lower)
        .any(|w| {
            let is_real = labels.pseudonym(&*w).is_some() && labels.real(&*w).is_none();
            is_real && !vocabulary::is_common(&w)
        })
        .then_some("name")
}

fn mail(text: &str) -> Option<&'static str> {
    let found = text.match_indices('@').any(|(at, _)| {
        let user = text[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
        let domain: String = text[at + 1..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
            .take(254)
            .collect();
        let last = domain.rsplit_once('.').map(|(_, last)| last.to_lowercase());
        user && last.is_some_and(|l| vocabulary::is_top_level(&l))
    });
    found.then_some("email")
}

/// Forms that are a secret wherever they stand.
fn marker(text: &str) -> Option<&'static str> {
    const PREFIXES: [(&str, usize); 9] = [
        ("AKIA", 16),
        ("ghp_", 20),
        ("gho_", 20),
        ("glpat-", 16),
        ("xoxb-", 10),
        ("xoxp-", 10),
        ("sk-ant-", 16),
        ("AIza", 30),
        ("hf_", 20),
    ];
    const HASHES: [&str; 9] = [
        "$1$", "$5$", "$6$", "$8$", "$9$", "$y$", "$2a$", "$2b$", "$2y$",
    ];
    let tail = |rest: &str| {
        rest.bytes()
            .take(LONGEST_PROSE)
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            .count()
    };
    if text.contains("PRIVATE KEY-----") || text.contains("PRIVATE KEY BLOCK-----") {
        return Some("private-key");
    }
    let by_prefix = PREFIXES.iter().any(|(prefix, least)| {
        text.match_indices(prefix).any(|(at, _)| {
            let starts = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            starts && tail(&text[at + prefix.len()..]) >= *least
        })
    });
    if by_prefix {
        return Some("api-key");
    }
    HASHES
        .iter()
        .any(|mark| {
            text.match_indices(mark)
                .any(|(at, _)| tail(&text[at + mark.len()..]) >= 4)
        })
        .then_some("hash")
}

/// A word such as `password`, an equals sign or colon, and something behind it.
fn keyed_value(text: &str) -> Option<&'static str> {
    const KEYS: [&str; 9] = [
        "password",
        "passwd",
        "passphrase",
        "psk",
        "secret",
        "private_key",
        "privatekey",
        "api_key",
        "presharedkey",
    ];
    let lower = text.to_ascii_lowercase();
    let follows = |end: usize| {
        let rest = lower[end..]
            .trim_start_matches(['"', '\''])
            .trim_start_matches([' ', '\t']);
        let Some(value) = rest.strip_prefix(['=', ':']) else {
            return false;
        };
        let value = value.trim_start_matches([' ', '\t', '"', '\'', '=', '>', '\\']);
        let near: String = value.chars().take(LONGEST_PROSE).collect();
        let word = near
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '}' | ']' | '\\'))
            .next()
            .unwrap_or_default();
        let word = word.trim_end_matches(['.', ';', ':', '!', '?', ')', '>']);
        !word.is_empty()
            && !value.starts_with("[redacted:")
            && !value.starts_with(['{', '[', '\r', '\n'])
            && !vocabulary::is_prose(word)
    };
    KEYS.iter()
        .any(|key| {
            lower
                .match_indices(key)
                .any(|(at, _)| follows(at + key.len()))
        })
        .then_some("password")
}

fn url_password(text: &str) -> Option<&'static str> {
    let found = text.match_indices("://").any(|(at, _)| {
        let authority = text[at + 3..]
            .split(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>'))
            .next()
            .unwrap_or_default();
        let user = authority.split_once('@').map_or("", |(user, _)| user);
        user.split_once(':').is_some_and(|(_, password)| {
            !password.is_empty() && !user.contains("[redacted") && !user.contains("[email:")
        })
    });
    found.then_some("url")
}

/// More than this is not looked at behind a key: no word of prose is longer, no marker needs more.
const LONGEST_PROSE: usize = 64;
