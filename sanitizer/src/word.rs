//! Names learned elsewhere (leases, search domains, logins) are replaced wherever they stand, also as a part of a word:
//! `anna` in `Annas-iPhone`.

use crate::exchange::{Exchange as _, Forward};
use crate::map::Map;
use crate::rule::Replacement;
use crate::text::splice;
use crate::{name, vocabulary};

/// Replaces learned names in a text that passed everything else.
pub(crate) fn sanitize(text: &str, forward: &mut Forward<'_>) -> String {
    if forward.map.labels.is_empty() {
        return text.to_owned();
    }
    let mut found = Vec::new();
    for (at, word) in words(text) {
        if holds_learned_name(word, forward.map) {
            found.push(Replacement {
                range: at..at + word.len(),
                text: forward.certain_name(word),
            });
        }
    }
    if found.is_empty() {
        text.to_owned()
    } else {
        splice(text, &found)
    }
}

/// The words of a text with their places: letters and digits of any script, dashes and underscores between them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let bytes = text.as_bytes();
        let part = |b: u8| b.is_ascii_alphanumeric() || b >= 0x80 || b == b'-' || b == b'_';
        at += bytes[at..].iter().take_while(|b| !part(**b)).count();
        let length = bytes[at..].iter().take_while(|b| part(**b)).count();
        let start = at;
        at += length;
        (length > 0).then(|| (start, &text[start..at]))
    })
}

/// True if the word, or a part of it between dashes or at a change of case, is a learned name or its genitive.
pub(crate) fn holds_learned_name(word: &str, map: &Map) -> bool {
    if !(LEAST..=MOST).contains(&word.len()) || name::is_pseudonym(word) {
        return false;
    }
    let lower = word.to_lowercase();
    if is_learned(&lower, map) {
        return true;
    }
    parts(word).any(|part| {
        let lower = part.to_lowercase();
        let stem = lower.strip_suffix('s').unwrap_or(&lower);
        let names = [lower.as_str(), stem];
        part.len() < word.len().max(stem.len() + 2)
            && names.iter().any(|n| n.len() > LEAST && is_learned(n, map))
    })
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
