//! A verdict for people: the whole in one line, then each finding with what shows it and what to do.

use std::io::{self, Write};

use aizen_protocol::finding::{Confidence, Evidence, Finding, Health, Severity, Verdict};
use aizen_protocol::package::manifest::Risk;
use aizen_protocol::private::Text;
use aizen_protocol::proposal::Proposal;

use crate::cli::screen::{Colour, Screen, plain};
use crate::cli::unseen::folded;

/// Writes the whole verdict.
pub(in crate::cli) fn write_verdict(
    out: &mut impl Write,
    verdict: &Verdict,
    screen: &Screen,
) -> io::Result<()> {
    let (word, colour) = match verdict.health {
        Health::Healthy => ("HEALTHY", Colour::Green),
        Health::Warning => ("WARNING", Colour::Yellow),
        Health::Critical => ("CRITICAL", Colour::Red),
        Health::Unknown => ("COULD NOT TELL", Colour::Yellow),
    };
    writeln!(out, "{}  {}", screen.paint(colour, word), counted(verdict))?;
    writeln!(
        out,
        "{}",
        screen.paint(Colour::Dim, &screen.moment(verdict.at))
    )?;
    for finding in &verdict.findings {
        writeln!(out)?;
        write_finding(out, finding, screen)?;
    }
    let unseen = folded(&verdict.unseen);
    let ruled_out: Vec<String> = verdict.ruled_out.iter().map(|t| short(&plain(t))).collect();
    for (title, lines) in [("Found well", ruled_out), ("Not seen", unseen)] {
        if !lines.is_empty() {
            writeln!(out, "\n{}", screen.paint(Colour::Bold, title))?;
            lines
                .iter()
                .try_for_each(|line| writeln!(out, "  {line}"))?;
        }
    }
    Ok(())
}

/// What is well needs no more than a few lines of a terminal; `--json` and `--html` have it whole.
fn short(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        None => line.to_owned(),
        Some((end, _)) => {
            let words = line[..end].rsplit_once(' ').map_or(&line[..end], |w| w.0);
            format!("{words} …")
        }
    }
}

fn counted(verdict: &Verdict) -> String {
    let of = |severity| {
        verdict
            .findings
            .iter()
            .filter(|f| f.severity == severity)
            .count()
    };
    match (
        verdict.health,
        of(Severity::Critical),
        of(Severity::Warning),
    ) {
        (Health::Unknown, 0, 0) => "too little was seen".to_owned(),
        (_, 0, 0) => "no fault found".to_owned(),
        (_, critical, 0) => format!("{critical} critical"),
        (_, 0, warning) => plural(warning),
        (_, critical, warning) => format!("{critical} critical, {}", plural(warning)),
    }
}

fn plural(warnings: usize) -> String {
    if warnings == 1 {
        "1 warning".to_owned()
    } else {
        format!("{warnings} warnings")
    }
}

/// Writes one finding.
pub(in crate::cli) fn write_finding(
    out: &mut impl Write,
    finding: &Finding,
    screen: &Screen,
) -> io::Result<()> {
    let (word, colour) = match finding.severity {
        Severity::Warning => ("warning", Colour::Yellow),
        Severity::Critical => ("critical", Colour::Red),
    };
    let sure = match finding.confidence {
        Confidence::Suspected => "suspected",
        Confidence::Likely => "likely",
        Confidence::Certain => "certain",
    };
    writeln!(
        out,
        "{}  {}",
        screen.paint(colour, word),
        screen.paint(Colour::Bold, &plain(&finding.summary))
    )?;
    let about = format!(
        "{} · {} · {sure} · since {}",
        finding.cause.0,
        plain(&finding.component),
        screen.time(finding.since)
    );
    writeln!(out, "  {}", screen.paint(Colour::Dim, &about))?;
    write_evidence(out, "Evidence", &finding.evidence, screen)?;
    write_evidence(out, "Against it", &finding.contradictions, screen)?;
    write_list(out, "Explains", &finding.consequences)?;
    write_list(out, "Would make it surer", &finding.missing)?;
    writeln!(
        out,
        "  {}  {}",
        screen.paint(Colour::Bold, "Next step"),
        plain(&finding.next_step)
    )?;
    if let Some(proposal) = &finding.proposal {
        write_proposal(out, proposal, screen)?;
    }
    Ok(())
}

fn write_evidence(
    out: &mut impl Write,
    title: &str,
    facts: &[Evidence],
    screen: &Screen,
) -> io::Result<()> {
    if facts.is_empty() {
        return Ok(());
    }
    let width = facts
        .iter()
        .map(|f| f.source.len())
        .max()
        .unwrap_or_default();
    writeln!(out, "  {title}")?;
    facts.iter().try_for_each(|fact| {
        let at = screen.paint(Colour::Dim, &screen.time(fact.at));
        writeln!(
            out,
            "    {at}  {:width$}  {}",
            fact.source,
            plain(&fact.fact)
        )
    })
}

fn write_list(out: &mut impl Write, title: &str, lines: &[Text]) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "  {title}")?;
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "    {}", plain(line)))
}

fn write_proposal(out: &mut impl Write, proposal: &Proposal, screen: &Screen) -> io::Result<()> {
    let risk = match proposal.manifest.risk {
        Some(Risk::None) => "risk: none",
        Some(Risk::Low) => "risk: low",
        Some(Risk::Medium) => "risk: medium",
        Some(Risk::High) => "risk: high",
        None => "risk: computed when it is rehearsed",
    };
    let title = screen.paint(Colour::Bold, "Proposal");
    writeln!(
        out,
        "  {title}   {} ({risk}; nothing was changed)",
        plain(&proposal.intent)
    )
}

/// Characters of a line about what is well.
const LONGEST: usize = 300;

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Cause;
    use aizen_protocol::record::Gap;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn finding() -> Finding {
        Finding {
            cause: Cause("resolver_dead".to_owned()),
            component: "192.0.2.2".into(),
            severity: Severity::Critical,
            confidence: Confidence::Certain,
            summary: "The resolver 192.0.2.2 does not answer".into(),
            since: at(1_000_000_000),
            evidence: vec![Evidence {
                source: "dns".to_owned(),
                at: at(1_000_000_005),
                fact: "192.0.2.2 answered 0 of 10 questions".into(),
            }],
            contradictions: Vec::new(),
            missing: vec!["the answer of another resolver".into()],
            consequences: Vec::new(),
            next_step: "Restart it".into(),
            proposal: None,
        }
    }

    fn verdict(health: Health, findings: Vec<Finding>) -> Verdict {
        Verdict {
            health,
            at: at(1_000_000_005),
            findings,
            ruled_out: vec!["The default gateway answers".into()],
            unseen: vec![Gap {
                collector: "reach".to_owned(),
                reason: "no permission".into(),
            }],
        }
    }

    fn shown(verdict: &Verdict, colour: bool, zone: TimeZone) -> String {
        let mut out = Vec::new();
        write_verdict(&mut out, verdict, &Screen { colour, zone }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_finding_is_told_with_its_evidence_and_both_times() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let text = shown(&verdict(Health::Critical, vec![finding()]), false, zone);
        let want = "CRITICAL  1 critical\n\
                    2001-09-09 01:46:45 UTC (03:46:45 local)\n\
                    \n\
                    critical  The resolver 192.0.2.2 does not answer\n\
                    \x20 resolver_dead · 192.0.2.2 · certain · since 01:46:40 UTC (03:46:40)\n\
                    \x20 Evidence\n\
                    \x20   01:46:45 UTC (03:46:45)  dns  192.0.2.2 answered 0 of 10 questions\n\
                    \x20 Would make it surer\n\
                    \x20   the answer of another resolver\n\
                    \x20 Next step  Restart it\n\
                    \n\
                    Found well\n\
                    \x20 The default gateway answers\n\
                    \n\
                    Not seen\n\
                    \x20 reach: no permission\n";
        assert_eq!(text, want);
    }

    #[test]
    fn colour_adds_escapes_and_takes_no_word_away() {
        let verdict = verdict(
            Health::Warning,
            vec![Finding {
                severity: Severity::Warning,
                ..finding()
            }],
        );
        let coloured = shown(&verdict, true, TimeZone::UTC);
        let mut bare = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            bare.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        bare.push_str(rest);
        assert_ne!(bare, coloured);
        assert_eq!(bare, shown(&verdict, false, TimeZone::UTC));
    }

    #[test]
    fn a_healthy_device_is_one_line_and_what_was_looked_at() {
        let text = shown(&verdict(Health::Healthy, Vec::new()), false, TimeZone::UTC);
        assert!(
            text.starts_with("HEALTHY  no fault found\n2001-09-09 01:46:45 UTC\n\nFound well"),
            "{text}"
        );
    }

    #[test]
    fn two_hundred_links_that_are_well_are_a_few_lines() {
        let names: Vec<String> = (0..200).map(|n| format!("éth{n}")).collect();
        let mut verdict = verdict(Health::Healthy, Vec::new());
        verdict.ruled_out = vec![names.join(", ").as_str().into()];
        let text = shown(&verdict, false, TimeZone::UTC);
        let line = text.lines().find(|line| line.contains("éth0")).unwrap();
        assert!(
            line.chars().count() < 310 && line.ends_with(", …"),
            "{line}"
        );
    }

    #[test]
    fn text_of_the_network_moves_no_cursor() {
        let evil = Finding {
            summary: "a\x1b[2Jb\u{202e}c\r".into(),
            ..finding()
        };
        let text = shown(&verdict(Health::Critical, vec![evil]), false, TimeZone::UTC);
        assert!(text.contains("a\u{fffd}[2Jb\u{fffd}c\u{fffd}"), "{text}");
    }
}
