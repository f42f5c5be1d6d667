//! The verdict as one page for any browser: nothing is loaded from elsewhere, and it prints.

mod chart;

use aizen_protocol::finding::{Confidence, Evidence, Finding, Health, Severity, Verdict};
use aizen_protocol::private::Text;
use aizen_protocol::record::Record;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::look::{Sample, tables};
use super::super::screen::{Align, Table, plain};
use super::super::unseen::folded;

/// The whole page. Everything that came from outside is escaped by the template.
pub(super) fn page(records: &[Record], verdict: &Verdict, zone: &TimeZone) -> String {
    let (word, class) = health(verdict.health);
    let (before, now) = Sample::newest(records);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { "Aizen: " (word) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { span class=(class) { (word) } ", " (counted(verdict)) }
                    p.dim { (moment(verdict.at, zone)) " · Aizen " (env!("CARGO_PKG_VERSION")) }
                }
                main {
                    @for finding in &verdict.findings { (article(finding, zone)) }
                    (chart::round_trips(records))
                    (chart::minutes(records))
                    @for (title, table) in tables(before.as_ref(), &now) {
                        @if !table.rows().is_empty() {
                            section { h2 { (title) } (rows(&table)) }
                        }
                    }
                    (list("Found well", verdict.ruled_out.iter().map(plain)))
                    (list("Not seen", folded(&verdict.unseen).into_iter()))
                }
            }
        }
    }
    .into_string()
}

fn health(health: Health) -> (&'static str, &'static str) {
    match health {
        Health::Healthy => ("Healthy", "healthy"),
        Health::Warning => ("Warning", "warning"),
        Health::Critical => ("Critical", "critical"),
        Health::Unknown => ("Could not tell", "unknown"),
    }
}

fn counted(verdict: &Verdict) -> String {
    match verdict.findings.len() {
        0 => "no fault found".to_owned(),
        1 => "one fault".to_owned(),
        many => format!("{many} faults"),
    }
}

/// UTC, and the device's own time where that differs.
fn moment(at: Timestamp, zone: &TimeZone) -> String {
    let utc = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let local = at.to_zoned(zone.clone());
    if local.offset().seconds() == 0 {
        utc.to_string()
    } else {
        format!("{utc} ({} local)", local.strftime("%H:%M:%S"))
    }
}

fn article(finding: &Finding, zone: &TimeZone) -> Markup {
    let (word, class) = match finding.severity {
        Severity::Warning => ("Warning", "warning"),
        Severity::Critical => ("Critical", "critical"),
    };
    let sure = match finding.confidence {
        Confidence::Suspected => "suspected",
        Confidence::Likely => "likely",
        Confidence::Certain => "certain",
    };
    html! {
        article class={ (class) "-edge" } {
            h3 { span class=(class) { (word) } ": " (plain(&finding.summary)) }
            p.dim {
                code { (finding.cause.0) } " · " (plain(&finding.component)) " · " (sure)
                " · since " (moment(finding.since, zone))
            }
            p { strong { "Next step: " } (plain(&finding.next_step)) }
            (evidence("What shows it", &finding.evidence, zone))
            (evidence("What speaks against it", &finding.contradictions, zone))
            (lines("It explains", &finding.consequences))
            (lines("Would make it surer", &finding.missing))
            @if let Some(proposal) = &finding.proposal {
                details {
                    summary { "A repair that can be proposed: " (plain(&proposal.intent)) " (nothing was changed)" }
                    pre { (proposal.script) }
                }
            }
        }
    }
}

fn evidence(title: &str, facts: &[Evidence], zone: &TimeZone) -> Markup {
    html! {
        @if !facts.is_empty() {
            p.dim { (title) }
            div.wide { table { @for fact in facts {
                tr { td { (moment(fact.at, zone)) } td { (fact.source) } td.text { (plain(&fact.fact)) } }
            } } }
        }
    }
}

fn lines(title: &str, lines: &[Text]) -> Markup {
    html! {
        @if !lines.is_empty() {
            p.dim { (title) }
            ul { @for line in lines { li { (plain(line)) } } }
        }
    }
}

fn list(title: &str, lines: impl Iterator<Item = String>) -> Markup {
    let lines: Vec<String> = lines.collect();
    html! {
        @if !lines.is_empty() {
            section { h2 { (title) } ul { @for line in lines { li { (line) } } } }
        }
    }
}

fn rows(table: &Table) -> Markup {
    let class = |align: Align| match align {
        Align::Left => "left",
        Align::Right => "right",
    };
    html! {
        div.wide { table {
            tr { @for (title, align) in table.head() { th class=(class(*align)) { (title) } } }
            @for row in table.rows() {
                tr { @for (cell, (_, align)) in row.iter().zip(table.head()) { td class=(class(*align)) { (cell) } } }
            }
        } }
    }
}

const STYLE: &str = include_str!("page/style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_says_is_never_markup() {
        let verdict = Verdict {
            health: Health::Critical,
            at: Timestamp::UNIX_EPOCH,
            findings: Vec::new(),
            ruled_out: vec!["<script>alert(1)</script> & \"more\"".into()],
            unseen: Vec::new(),
        };
        let page = page(&[], &verdict, &TimeZone::UTC);
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp;"),
            "{page}"
        );
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn a_page_loads_nothing_from_elsewhere() {
        let verdict = Verdict {
            health: Health::Healthy,
            at: Timestamp::UNIX_EPOCH,
            findings: Vec::new(),
            ruled_out: Vec::new(),
            unseen: Vec::new(),
        };
        let page = page(&[], &verdict, &TimeZone::UTC);
        for word in ["http://", "https://", "src=", "url(", "@import", "href="] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("no fault found"));
    }
}
