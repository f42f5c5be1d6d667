//! Lines of log. Anybody may have written one: it never makes a finding surer than suspected.

use aizen_protocol::record::LogLine;
use jiff::SignedDuration;

use crate::case::View;

/// Characters of a line that a fact quotes.
const QUOTED: usize = 160;
/// A writer's clock may be a little ahead.
const AHEAD: SignedDuration = SignedDuration::from_secs(60);

/// The lines of the last minutes that hold one of these texts, the oldest first. Letters of both cases are the same.
pub(super) fn recent<'a>(
    view: &View<'a>,
    minutes: i64,
    texts: &'a [&'a str],
) -> impl Iterator<Item = &'a LogLine> {
    let now = view.now().ended.at;
    let oldest = now - SignedDuration::from_mins(minutes);
    view.now()
        .log
        .iter()
        .flat_map(|seen| &seen.value)
        .filter(move |line| line.at >= oldest && line.at <= now + AHEAD)
        .filter(move |line| texts.iter().any(|text| holds(&line.text.0, text)))
}

/// Without a copy: a log is long and is searched for every pass.
fn holds(line: &str, text: &str) -> bool {
    line.as_bytes()
        .windows(text.len().max(1))
        .any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

/// `charon wrote: …`, bounded and on one line.
pub(super) fn quote(line: &LogLine) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = line.text.0.chars().take(QUOTED).map(clean).collect();
    let program: String = line.program.chars().take(40).map(clean).collect();
    format!("{program} wrote: {text}")
}
