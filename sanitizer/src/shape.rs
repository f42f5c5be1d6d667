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
use digits::{digits, dotted_mac, phone};
use dotted::{dashed, dotted, percent_dots, reversed};
use named::{dotted_name, mail, pseudonym, token};

type Read = fn(&Candidate<'_>, &mut dyn Exchange) -> Found;

/// In order of precedence where two start at the same place.
const SHAPES: &[(&str, Read)] = &[
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
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9\x80-\xff-]+(?:\.[A-Za-z0-9\x80-\xff-]+)*",
        mail,
    ),
    (r"\d+(?:\.\d+){3,}", dotted),
    (
        r"[A-Za-z0-9_\x80-\xff][A-Za-z0-9_\x80-\xff-]*(?:\.[A-Za-z0-9_\x80-\xff-]+)*\.[A-Za-z\x80-\xff][A-Za-z0-9_\x80-\xff-]*",
        dotted_name,
    ),
    (r"\[[a-z-]{4,12}:[a-z2-7]{13}\]", token),
    INNER[0],
    INNER[1],
    INNER[2],
    INNER[3],
    INNER[4],
];

/// What may stand inside a dotted word that is no name.
const INNER: &[(&str, Read)] = &[
    (r"(?:host|ssid)-[a-z2-7]{13}", pseudonym),
    (
        r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}",
        dotted_mac,
    ),
    (r"\d{1,3}(?:-\d{1,3}){3}", dashed),
    (r"[0-9A-Fa-f]{8,}", digits),
    (r"\+\d[\d ()/-]{7,17}\d", phone),
];

/// Replaces the values in a part of a text; the rest of the text is looked at for its edges only.
pub(crate) fn exchange(
    text: &str,
    part: Range<usize>,
    values: &mut dyn Exchange,
) -> Vec<Replacement> {
    let mut found = Vec::new();
    walk(&ALL, SHAPES, text, part, values, &mut found);
    found
}

fn walk(
    regex: &Regex,
    shapes: &[(&str, Read)],
    text: &str,
    part: Range<usize>,
    values: &mut dyn Exchange,
    found: &mut Vec<Replacement>,
) {
    let mut from = part.start;
    let mut at = part.start;
    while let Some(hit) = regex.search(&Input::new(text).range(at..part.end)) {
        let Some((_, read)) = shapes.get(hit.pattern().as_usize()) else {
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
                let end = range.end;
                from = end;
                if text.get(range.clone()) != Some(&*replacement) {
                    found.push(Replacement {
                        range,
                        text: replacement,
                    });
                }
                end.max(hit.start() + 1)
            }
            Found::Nothing(end) => end.max(hit.start() + 1),
            Found::LookInside => {
                let inside = from.max(hit.start())..hit.end();
                walk(&INSIDE, INNER, text, inside, values, found);
                from = found.last().map_or(from, |r| from.max(r.range.end));
                hit.end()
            }
        };
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
}

static ALL: LazyLock<Regex> = LazyLock::new(|| patterns(SHAPES));
static INSIDE: LazyLock<Regex> = LazyLock::new(|| patterns(INNER));

fn patterns(shapes: &[(&str, Read)]) -> Regex {
    compile(&shapes.iter().map(|(p, _)| *p).collect::<Vec<_>>())
}
