//! Free text as a whole: made plain, then what rules know, then what shapes show.

use std::ops::Range;

use crate::exchange::{Backward, Exchange, Forward};
use crate::plain::plain;
use crate::rule::{self, Replacement};
use crate::secret::{SecretKind, random_words};
use crate::shape;

/// Replaces what is private in a text. Names that are learned on the way are replaced in it by [`crate::word`].
pub(crate) fn sanitize(text: &str, forward: &mut Forward<'_>) -> String {
    let text = &*plain(text);
    let mut all = Vec::new();
    let mut at = 0;
    for by_rule in rule::find(text, forward) {
        between(text, at..by_rule.range.start, forward, &mut all);
        at = by_rule.range.end;
        all.push(by_rule);
    }
    between(text, at..text.len(), forward, &mut all);
    splice(text, &all)
}

/// What no rule found: words that look random, and shapes.
fn between(text: &str, part: Range<usize>, forward: &mut Forward<'_>, all: &mut Vec<Replacement>) {
    let mut at = part.start;
    for range in random_words(text, part.clone()) {
        all.extend(shape::exchange(text, at..range.start, forward));
        at = range.end;
        forward.counts.replaced(SecretKind::Entropy.word());
        all.push(Replacement {
            range,
            text: SecretKind::Entropy.redacted(),
        });
    }
    all.extend(shape::exchange(text, at..part.end, forward));
}

/// Puts real values in the place of the pseudonyms that the map knows.
pub(crate) fn reveal(text: &str, mut backward: Backward<'_>) -> String {
    let values: &mut dyn Exchange = &mut backward;
    splice(text, &shape::exchange(text, 0..text.len(), values))
}

/// Writes a text with its replacements, which are in order and don't overlap.
pub(crate) fn splice(text: &str, replacements: &[Replacement]) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut at = 0;
    for Replacement { range, text: with } in replacements {
        let Range { start, end } = *range;
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str(with);
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}
