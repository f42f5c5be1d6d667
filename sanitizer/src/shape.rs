//! Values that are known by their shape: addresses, MAC addresses, names with a known ending, mail addresses, tokens,
//! in every form that one value is written in. The same walk serves both directions.

use std::ops::Range;
use std::sync::LazyLock;

use regex_automata::Input;
use regex_automata::meta::Regex;

use crate::exchange::Exchange;
use crate::rule::{Replacement, compile};

mod candidate;
mod colon;
mod digits;
mod dotted;
mod named;

use candidate::{Candidate, Found};
use colon::{address6, groups, percent_colons};
pub(crate) use digits::known_bare_mac;
use digits::{digits, dotted_mac, phone};
use dotted::{dashed, dotted, percent_dots, reversed};
use named::{dotted_name, mail, pseudonym, token};

type Read = fn(&Candidate<'_>, &mut dyn Exchange) -> Found;

// What can start at any letter has a bounded length: a search may not run to the end of a word again and again.

/// In order of precedence where two start at the same place: first what no other shape may cut into.
const WHOLE: &[(&str, Read)] = &[
    (r"(?i)\d{1,3}(?:\.\d{1,3}){0,3}\.in-addr\.arpa", reversed),
    (r"(?i)[0-9a-f](?:\.[0-9a-f]){0,31}\.ip6\.arpa", reversed),
    (
        r"[0-9A-Fa-f]{0,4}(?:%3[Aa][0-9A-Fa-f]{0,4}){2,7}",
        percent_colons,
    ),
    (r"\d{1,3}(?:%2[Ee]\d{1,3}){3}", percent_dots),
    (r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5,}", groups),
    (r"[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5,}", groups),
    (
        r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4})",
        address6,
    ),
    (
        r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)*",
        mail,
    ),
];

/// What may stand on one side of an `@` that belongs to no mail address.
const WORDS: &[(&str, Read)] = &[
    (r"\d+(?:\.\d+){3,}", dotted),
    (
        r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}",
        dotted_mac,
    ),
    (
        r"[A-Za-z0-9_\x80-\xff][A-Za-z0-9_\x80-\xff-]{0,62}(?:\.[A-Za-z0-9_\x80-\xff-]{1,63}){0,10}\.[A-Za-z\x80-\xff][A-Za-z0-9_\x80-\xff-]{0,62}",
        dotted_name,
    ),
    (r"\[[a-z-]{4,12}:[a-z2-7]{13}\]", token),
];

/// What may stand inside a dotted word that is no name.
const PARTS: &[(&str, Read)] = &[
    (r"\d+(?:\.\d+){3,}", dotted),
    (r"(?:host|ssid)-[a-z2-7]{13}", pseudonym),
    (r"[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){5,}", groups),
    (
        r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}",
        dotted_mac,
    ),
    (r"\d{1,3}(?:-\d{1,3}){3}", dashed),
    (r"[0-9A-Fa-f]{8,}", digits),
    (r"\+\d[\d ()/-]{7,17}\d", phone),
];

/// Shapes that are looked for together, and inside a match of which no longer shape is looked for again: so each byte
/// is looked at three times at most.
struct Set {
    regex: Regex,
    readers: Vec<Read>,
    inner: Option<&'static LazyLock<Self>>,
}

static ALL: LazyLock<Set> = LazyLock::new(|| Set::new(&[WHOLE, WORDS, PARTS], Some(&IN_WORDS)));
static IN_WORDS: LazyLock<Set> = LazyLock::new(|| Set::new(&[WORDS, PARTS], Some(&IN_PARTS)));
static IN_PARTS: LazyLock<Set> = LazyLock::new(|| Set::new(&[PARTS], None));

/// Replaces the values in a part of a text; the rest of the text is looked at for its edges only.
pub(crate) fn exchange(
    text: &str,
    part: Range<usize>,
    values: &mut dyn Exchange,
) -> Vec<Replacement> {
    let mut found = Vec::new();
    ALL.walk(text, part, values, &mut found);
    found
}

impl Set {
    fn new(shapes: &[&[(&str, Read)]], inner: Option<&'static LazyLock<Self>>) -> Self {
        let shapes = shapes.concat();
        let patterns: Vec<_> = shapes.iter().map(|(p, _)| *p).collect();
        Self {
            regex: compile(&patterns),
            readers: shapes.iter().map(|(_, read)| *read).collect(),
            inner,
        }
    }

    fn walk(
        &self,
        text: &str,
        part: Range<usize>,
        values: &mut dyn Exchange,
        found: &mut Vec<Replacement>,
    ) {
        let mut from = part.start;
        let mut at = part.start;
        while let Some(hit) = self.regex.search(&Input::new(text).range(at..part.end)) {
            let Some(read) = self.readers.get(hit.pattern().as_usize()) else {
                break;
            };
            let candidate = Candidate {
                text,
                from,
                to: part.end,
                start: hit.start(),
                end: hit.end(),
            };
            at = match read(&candidate, values) {
                Found::Value(range, replacement) => {
                    from = range.end;
                    if text.get(range.clone()) != Some(&*replacement) {
                        found.push(Replacement {
                            range,
                            text: replacement,
                        });
                    }
                    from.max(hit.start() + 1)
                }
                Found::Nothing(end) => end.max(hit.start() + 1),
                Found::LookInside(end) => {
                    let inside = from.max(hit.start())..end;
                    if let Some(inner) = self.inner {
                        inner.walk(text, inside, values, found);
                    }
                    from = found.last().map_or(from, |r| from.max(r.range.end));
                    end.max(hit.start() + 1)
                }
            };
            while !text.is_char_boundary(at) {
                at += 1;
            }
        }
    }
}
