//! Names learned elsewhere (leases, search domains, logins) are replaced wherever they stand, also as a part of a word:
//! `anna` in `Annas-iPhone`.

use std::borrow::Cow;

use crate::exchange::{Exchange as _, Forward};
use crate::map::Map;
use crate::rule::Replacement;
use crate::shape::known_bare_mac;
use crate::text::splice;
use crate::{name, vocabulary};

/// Replaces what was learned meanwhile in a text that passed everything else: names, and MAC addresses that look like
/// numbers.
pub(crate) fn sanitize(text: &str, forward: &mut Forward<'_>) -> String {
    let mut found = Vec::new();
    for (at, word) in words(text) {
        let replaced = if holds_learned_name(word, forward.map) {
            Some(forward.certain_name(word))
        } else {
            known_bare_mac(word, forward)
        };
        if let Some(text) = replaced {
            let range = at..at + word.len();
            found.push(Replacement { range, text });
        }
    }
    splice(text, &found)
}

/// The words of a text with their places: letters and digits of any script, dashes and underscores between them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(is_part)?;
        let length = text[start..].find(|c| !is_part(c));
        at = length.map_or(text.len(), |length| start + length);
        Some((start, &text[start..at]))
    })
}

/// True if the word, or a part of it between dashes or at a change of case, is a learned name or its genitive.
pub(crate) fn holds_learned_name(word: &str, map: &Map) -> bool {
    if map.labels.is_empty() {
        return false;
    }
    let is_pseudonym = name::is_pseudonym(word) || map.labels.real(word).is_some();
    if !(LEAST..=MOST).contains(&word.len()) || is_pseudonym {
        return false;
    }
    let whole = lower(word);
    if is_learned(&whole, map) {
        return true;
    }
    parts(word).any(|part| {
        let lower = lower(part);
        let stem = lower.strip_suffix('s').unwrap_or(&lower);
        let names = [&*lower, stem];
        names.iter().any(|n| n.len() > LEAST && is_learned(n, map))
    })
}

/// Lower case, without a copy where it is that already.
pub(crate) fn lower(word: &str) -> Cow<'_, str> {
    let is_lower = |b: u8| b.is_ascii() && !b.is_ascii_uppercase();
    if word.bytes().all(is_lower) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(word.to_lowercase())
    }
}

fn is_learned(lower: &str, map: &Map) -> bool {
    lower.len() >= LEAST
        && map.labels.pseudonym(lower).is_some()
        && !vocabulary::is_common(lower)
        && !lower.bytes().all(|b| b.is_ascii_digit())
}

/// `Annas`, `i`, `Phone` of `Annas-iPhone`.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    word.split(['-', '_']).flat_map(|piece| {
        let mut rest = piece;
        std::iter::from_fn(move || {
            let mut before_is_lower = false;
            let cut = rest
                .char_indices()
                .find(|(_, c)| {
                    let starts = before_is_lower && c.is_uppercase();
                    before_is_lower = c.is_lowercase();
                    starts
                })
                .map_or(rest.len(), |(at, _)| at);
            let (part, behind) = rest.split_at(cut);
            rest = behind;
            (!part.is_empty()).then_some(part)
        })
    })
}

/// Shorter names are replaced where their place shows that they are names, not in prose.
const LEAST: usize = 3;
/// Longest word that is looked at; a DNS name has at most 253 bytes.
const MOST: usize = 255;
