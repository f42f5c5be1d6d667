//! Values that are known by their place or their own form: one compiled pass over a text with every rule in it.

use std::ops::Range;
use std::sync::LazyLock;

use regex_automata::Input;
use regex_automata::meta::{Config, Regex};
use regex_automata::util::syntax;

use crate::context::CONTEXTS;
use crate::exchange::{Exchange as _, Forward};
use crate::secret::{SECRETS, SecretKind};
use crate::token::TokenKind;
use crate::vocabulary;

/// A pattern and what becomes of its value: the first group that took part, or the whole match.
pub(crate) struct Rule {
    pub(crate) pattern: &'static str,
    pub(crate) action: Action,
    pub(crate) guard: Guard,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Secret(SecretKind),
    Token(TokenKind),
    /// One name.
    Name,
    /// Names with blanks between them.
    Names,
}

/// When a match counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    Always,
    /// Not if the value is a word of prose ("password required").
    NotProse,
    /// Only if it has a digit ("serial console" is no serial number).
    HasDigit,
    /// Not if it is a keyword, a system's account or an interface.
    NotCommon,
    /// Not if one of the words says that this is a sentence or a line of `ip`.
    HostLine,
}

/// A piece of text and what takes its place.
pub(crate) struct Replacement {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
}

/// Finds everything that the rules know, in order, without overlap.
pub(crate) fn find(text: &str, forward: &mut Forward<'_>) -> Vec<Replacement> {
    let mut found = Vec::new();
    scan(text, 0..text.len(), NESTED, forward, &mut found);
    found
}

fn scan(
    text: &str,
    part: Range<usize>,
    nested: u8,
    forward: &mut Forward<'_>,
    found: &mut Vec<Replacement>,
) {
    let regex = &*COMPILED;
    let mut captures = regex.create_captures();
    let mut at = part.start;
    while at < part.end {
        let rest = at..part.end;
        regex.search_captures(&Input::new(text).range(rest), &mut captures);
        let (Some(pattern), Some(whole)) = (captures.pattern(), captures.get_match()) else {
            break;
        };
        let rule = rules().nth(pattern.as_usize());
        let group = (1..captures.group_len()).find_map(|n| captures.get_group(n));
        let span = group.map_or_else(|| whole.range(), |g| g.start..g.end);
        let span = on_boundaries(text, trimmed(text, span, group.is_some()));
        let replacement = rule.and_then(|r| apply(r, text, &span, forward));
        let next = match (&replacement, rule.map(|r| r.guard)) {
            // Long values that were looked at once; looking into them again would not be linear.
            (Some(_), _) | (None, Some(Guard::HasDigit)) => span.end,
            // What stands behind the key may be a match of its own.
            (None, _) => span.start,
        };
        // Before the value there may be others, if its key is far away ("set … key …").
        let end = key_start(text, whole.start()..span.start);
        if nested > 0 && whole.start() < end {
            scan(text, whole.start()..end, nested - 1, forward, found);
        }
        if let Some(with) = replacement {
            found.push(Replacement {
                range: span,
                text: with,
            });
        }
        at = next.max(whole.start() + 1);
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
}

/// Where the key of a value begins: the last word before it, but for signs, numbers and kinds of a secret.
fn key_start(text: &str, before: Range<usize>) -> usize {
    let mut rest = text.get(before.clone()).unwrap_or_default();
    loop {
        rest = rest.trim_end();
        let word = rest
            .rfind(char::is_whitespace)
            .map_or(rest, |at| &rest[at + 1..]);
        rest = &rest[..rest.len() - word.len()];
        let is_key = word.bytes().any(|b| b.is_ascii_alphabetic()) && !SECRET_TYPES.contains(&word);
        if word.is_empty() || is_key {
            return before.start + rest.len();
        }
    }
}

fn apply(
    rule: &Rule,
    text: &str,
    span: &Range<usize>,
    forward: &mut Forward<'_>,
) -> Option<String> {
    let value = text.get(span.clone())?;
    if value.is_empty() || value.starts_with("[redacted:") || !counts(rule.guard, value) {
        return None;
    }
    match rule.action {
        Action::Secret(kind) => {
            forward.counts.replaced(kind.word());
            Some(kind.redacted())
        }
        Action::Token(kind) => forward.token(kind, value),
        // A mail address is a value of its own.
        Action::Name if text[span.end..].starts_with('@') => None,
        Action::Name => Some(forward.certain_name(value)),
        Action::Names => {
            let names = value.split_inclusive([' ', '\t']);
            Some(
                names
                    .map(|name| {
                        let bare = name.trim_end_matches([' ', '\t']);
                        let blank = &name[bare.len()..];
                        if vocabulary::is_common(&bare.to_lowercase()) {
                            name.to_owned()
                        } else {
                            forward.certain_name(bare) + blank
                        }
                    })
                    .collect(),
            )
        }
    }
}

fn counts(guard: Guard, value: &str) -> bool {
    let word = value
        .trim_start_matches('(')
        .trim_end_matches(['.', ',', ';', ':', '!', '?', ')'])
        .to_lowercase();
    match guard {
        Guard::Always => true,
        Guard::NotProse => !vocabulary::is_prose(&word),
        Guard::HasDigit => value.bytes().any(|b| b.is_ascii_digit()),
        Guard::NotCommon => !vocabulary::is_common(&word) && word.parse::<f64>().is_err(),
        Guard::HostLine => !word.split([' ', '\t']).any(vocabulary::is_line_keyword),
    }
}

/// Closing quotes and brackets behind an unquoted value are the text's, not the value's.
fn trimmed(text: &str, span: Range<usize>, is_group: bool) -> Range<usize> {
    let quoted = text[..span.start.min(text.len())].ends_with(['"', '\'']);
    match text.get(span.clone()) {
        Some(value) if is_group && !quoted => {
            let kept = value.trim_end_matches(['"', '\'', ')', ']', '}', '>', ',', ';', '\\']);
            span.start..span.start + kept.len()
        }
        Some(_) | None => span,
    }
}

/// Patterns look at bytes; text is cut between characters.
fn on_boundaries(text: &str, span: Range<usize>) -> Range<usize> {
    let Range { mut start, mut end } = span;
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

fn rules() -> impl Iterator<Item = &'static Rule> {
    SECRETS.iter().chain(CONTEXTS)
}

static COMPILED: LazyLock<Regex> = LazyLock::new(|| {
    let patterns: Vec<_> = rules().map(|r| r.pattern).collect();
    compile(&patterns)
});

/// Compiles constant patterns over bytes: no Unicode tables, no backtracking that could be worse than linear.
#[expect(
    clippy::expect_used,
    reason = "the patterns are constants; a test compiles each"
)]
pub(crate) fn compile(patterns: &[&str]) -> Regex {
    Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .configure(
            Config::new()
                .utf8_empty(false)
                .hybrid_cache_capacity(DFA_CACHE),
        )
        .build_many(patterns)
        .expect("constant patterns compile")
}

/// Bytes for the lazily built automaton; beyond it starts over.
const DFA_CACHE: usize = 4 << 20;

/// What may stand between a key and its secret.
const SECRET_TYPES: [&str; 7] = [
    "md5",
    "text",
    "encrypted",
    "clear",
    "plaintext",
    "ascii-text",
    "is",
];
/// How often the text before a value is looked at again.
const NESTED: u8 = 2;
