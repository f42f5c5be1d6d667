//! What could not be seen, for people: gaps that have one reason are one line.

use aizen_protocol::record::Gap;

use super::screen::plain;

/// Most names in one line.
const MOST: usize = 12;

/// Lines for people, in the order in which the reasons first appear. `filter` and `lldp` that are both "could not see
/// …: only the executor may" become one line that names what each looks for.
pub(super) fn folded<'a>(gaps: impl IntoIterator<Item = &'a Gap>) -> Vec<String> {
    let mut reasons: Vec<Reason<'a>> = Vec::new();
    for gap in gaps {
        let (what, why) = parts(gap);
        match reasons.iter_mut().find(|reason| reason.why == why) {
            Some(reason) => reason.gaps.push((what, gap)),
            None => reasons.push(Reason {
                why,
                gaps: vec![(what, gap)],
            }),
        }
    }
    reasons.iter().map(Reason::line).collect()
}

/// What was looked for, if it is said, and why it was not seen.
fn parts(gap: &Gap) -> (Option<&str>, &str) {
    match gap.reason.0.split_once(": ") {
        Some((what, why)) => (Some(what.strip_prefix(BEGIN).unwrap_or(what)), why),
        None => (None, &gap.reason.0),
    }
}

struct Reason<'a> {
    why: &'a str,
    gaps: Vec<(Option<&'a str>, &'a Gap)>,
}

impl Reason<'_> {
    fn line(&self) -> String {
        let first = self.gaps[0].1;
        if self.gaps.iter().all(|(_, gap)| *gap == first) {
            return format!("{}: {}", first.collector, plain(&first.reason));
        }
        let mut names: Vec<&str> = Vec::new();
        for (what, gap) in &self.gaps {
            let name = what.unwrap_or(&gap.collector);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let more = names.len().saturating_sub(MOST);
        names.truncate(MOST);
        let mut line = names.join(", ");
        if more > 0 {
            line.push_str(&format!(" and {more} more"));
        }
        let one = self.gaps.iter().all(|(what, gap)| {
            gap.collector == first.collector && what.is_some_and(|what| what != gap.collector)
        });
        if one {
            line.insert_str(0, &format!("{}: ", first.collector));
        }
        plain(&format!("{line}: {}", self.why).as_str().into())
    }
}

/// How the gaps of the executor's door begin.
const BEGIN: &str = "could not see ";

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(collector: &str, reason: &str) -> Gap {
        Gap {
            collector: collector.to_owned(),
            reason: reason.into(),
        }
    }

    #[test]
    fn gaps_of_one_reason_are_one_line_that_names_them_all() {
        let gaps = [
            gap("filter", "could not see the packet filter: only root may"),
            gap("time", "no time server is configured"),
            gap("lldp", "could not see LLDP neighbours: only root may"),
        ];
        assert_eq!(
            folded(&gaps),
            [
                "the packet filter, LLDP neighbours: only root may",
                "time: no time server is configured"
            ]
        );
    }

    #[test]
    fn a_gap_alone_or_said_twice_keeps_its_words() {
        let alone = gap("filter", "could not see the packet filter: only root may");
        assert_eq!(
            folded([&alone, &alone]),
            ["filter: could not see the packet filter: only root may"]
        );
    }

    #[test]
    fn two_hundred_links_with_one_reason_are_one_short_line() {
        let gaps: Vec<Gap> = (0..200)
            .map(|n| gap("arp", &format!("eth{n}: the network is down\u{1b}[2J")))
            .collect();
        let lines = folded(&gaps);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("arp: eth0, eth1, "), "{}", lines[0]);
        assert!(
            lines[0].ends_with("eth11 and 188 more: the network is down\u{fffd}[2J"),
            "{}",
            lines[0]
        );
    }
}
