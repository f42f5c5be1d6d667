//! Words: names with a known ending, mail addresses, and our own pseudonyms and tokens on the way back.

use std::net::Ipv4Addr;

use super::candidate::{Candidate, Found};
use crate::exchange::Exchange;
use crate::token::{TokenKind, is_digest_text};
use crate::vocabulary;

pub(super) fn mail(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let Some((user, domain)) = c.value().split_once('@') else {
        return Found::LookInside(c.end);
    };
    let host_at = c.start + user.len() + 1;
    if domain.parse::<Ipv4Addr>().is_ok()
        || domain.is_empty()
        || vocabulary::is_interface_name(domain)
    {
        return Found::LookInside(host_at);
    }
    let ends_in_domain = domain
        .rsplit_once('.')
        .is_some_and(|(_, last)| vocabulary::is_top_level(&last.to_lowercase()));
    if ends_in_domain {
        return match values.token(TokenKind::Email, c.value()) {
            Some(token) => c.replaced(token),
            None => c.nothing(),
        };
    }
    // A shell's prompt or a login: user@host.
    let is_prompt =
        c.after().first() == Some(&b':') && !domain.contains('.') && !vocabulary::is_common(domain);
    if is_prompt {
        let user = if vocabulary::is_system_user(user) {
            user.to_owned()
        } else {
            values.certain_name(user)
        };
        return c.replaced(format!("{user}@{}", values.certain_name(domain)));
    }
    match values.name(domain) {
        Some(name) => Found::Value(host_at..c.end, name),
        None => Found::LookInside(host_at),
    }
}

pub(super) fn dotted_name(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let value = c.value().trim_end_matches(['.', '-']);
    match values.name(value) {
        Some(name) => Found::Value(c.start..c.start + value.len(), name),
        None => Found::LookInside(end_of_word(c)),
    }
}

/// Where a dotted word that is no name ends: behind numbers that belong to it, before a group that belongs to colons.
fn end_of_word(c: &Candidate<'_>) -> usize {
    let bytes = &c.text.as_bytes()[..c.to];
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | 0x80..);
    // At most four digits of a group that a colon follows, plain or percent-encoded.
    let group = |end: usize| match &bytes[end..] {
        [b':', b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' | b':', ..] | [b'%', b'2' | b'3', ..] => {
            bytes[..end]
                .iter()
                .rev()
                .take(4)
                .take_while(|b| b.is_ascii_hexdigit())
                .count()
        }
        _ => 0,
    };
    let mut end = c.end;
    while group(end) == 0 && bytes.get(end) == Some(&b'.') {
        let label = bytes[end + 1..].iter().take_while(|b| is_part(b)).count();
        if label == 0 {
            break;
        }
        end += 1 + label;
    }
    end - group(end)
}

pub(super) fn token(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let word = c
        .value()
        .trim_matches(['[', ']'])
        .split(':')
        .next()
        .unwrap_or_default();
    let known = TokenKind::ALL.iter().find(|k| k.word() == word);
    match known.and_then(|kind| values.known_token(*kind, c.value())) {
        Some(real) => c.replaced(real),
        None => c.nothing(),
    }
}

pub(super) fn pseudonym(c: &Candidate<'_>, values: &mut dyn Exchange) -> Found {
    let digest = c.value().get(5..).unwrap_or_default();
    if c.is_inside_word() || !is_digest_text(digest) {
        return c.nothing();
    }
    let real = match values.known_token(TokenKind::Ssid, c.value()) {
        None => values.known_name(c.value()),
        real => real,
    };
    match real {
        Some(real) => c.replaced(real),
        None => c.nothing(),
    }
}
