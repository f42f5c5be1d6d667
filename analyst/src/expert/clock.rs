//! The device's clock against time servers.

mod server;
mod unset;

use aizen_protocol::finding::Severity;
use aizen_protocol::record::{Time, TimeServer};

use super::draft::{Draft, Examined, Layer};
use super::unit::{list, span};
use crate::case::{Seen, View};

/// Below this nobody notices.
const WARNING_MS: u64 = 1_000;
/// Above this TLS, DNSSEC and one-time passwords fail.
const CRITICAL_MS: u64 = 60_000;
/// Servers agree if their offsets differ by no more.
const AGREE_MS: u64 = 500;

/// A usable answer (RFC 5905: stratum 1 to 15).
struct Answer<'a> {
    server: &'a TimeServer,
    offset_ms: i64,
}

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = offset(view);
    examined.drafts.extend(unset::examine(view));
    examined.drafts.extend(server::examine(view));
    examined
}

fn offset(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let Some(seen) = &view.now().time else {
        return examined;
    };
    let answers: Vec<Answer<'_>> = seen
        .value
        .servers
        .iter()
        .filter(|server| {
            server
                .stratum
                .is_none_or(|stratum| (1..16).contains(&stratum))
        })
        .filter_map(|server| {
            Some(Answer {
                server,
                offset_ms: server.offset_ms?,
            })
        })
        .collect();
    if answers.is_empty() {
        return examined;
    }
    let agreeing = largest_agreement(&answers);
    // One liar must not outvote, nor stalemate, an honest server.
    if agreeing.len() * 2 <= answers.len() {
        let servers = list(answers.iter().map(|answer| answer.server.server));
        examined.well.push(format!(
            "The time servers {servers} disagree with each other, which says nothing about this clock"
        ));
        return examined;
    }
    let certain = agreeing
        .iter()
        .map(|answer| least_offset(answer))
        .min()
        .unwrap_or(0);
    if certain <= WARNING_MS {
        let worst = agreeing
            .iter()
            .map(|answer| answer.offset_ms.unsigned_abs())
            .max();
        examined.well.push(format!(
            "The clock is within {} of {}",
            span(worst.unwrap_or(0)),
            list(agreeing.iter().map(|answer| answer.server.server))
        ));
        return examined;
    }
    examined
        .drafts
        .push(wrong_clock(seen, certain, &answers, &agreeing));
    examined
}

fn wrong_clock(
    seen: &Seen<Time>,
    certain: u64,
    answers: &[Answer<'_>],
    agreeing: &[&Answer<'_>],
) -> Draft {
    let mut draft = wrong(certain, agreeing[0].offset_ms);
    for answer in agreeing {
        let server = answer.server.server;
        let rtt = answer.server.rtt_us.map_or_else(String::new, |rtt| {
            format!(", round trip {}", super::unit::millis(rtt))
        });
        let fact = format!("{server} is {}{rtt}", relation(answer.offset_ms));
        draft.shown("time", &server.to_string(), seen.at, fact);
    }
    for answer in answers
        .iter()
        .filter(|answer| !agreeing.iter().any(|a| std::ptr::eq(*a, *answer)))
    {
        let fact = format!("{} is {}", answer.server.server, relation(answer.offset_ms));
        draft.contradicted("time", seen.at, fact);
    }
    match seen.value.kernel_synchronised {
        Some(false) => {
            let fact = "the kernel says that no daemon disciplines the clock";
            draft.backed("time", "kernel", seen.at, fact.into());
        }
        Some(true) => {
            let fact = "the kernel says that a daemon disciplines the clock";
            draft.contradicted("time", seen.at, fact.into());
        }
        None => {}
    }
    if answers.len() == 1 {
        draft.misses(
            "the offset to a second, independent time server (`chronyc sources`, `ntpq -p`)",
        );
    }
    draft
}

/// The largest group of answers that lie close together; the first of equals.
fn largest_agreement<'a>(answers: &'a [Answer<'a>]) -> Vec<&'a Answer<'a>> {
    let around = |centre: &Answer<'_>| -> Vec<&'a Answer<'a>> {
        let close = |answer: &&Answer<'_>| answer.offset_ms.abs_diff(centre.offset_ms) <= AGREE_MS;
        answers.iter().filter(close).collect()
    };
    let mut best: Vec<&Answer<'_>> = Vec::new();
    for centre in answers {
        let group = around(centre);
        if group.len() > best.len() {
            best = group;
        }
    }
    best
}

/// What remains if the whole round trip was spent on one way (RFC 4330: the error is at most half of it).
fn least_offset(answer: &Answer<'_>) -> u64 {
    let error = u64::from(answer.server.rtt_us.unwrap_or(0)) / 2000;
    answer.offset_ms.unsigned_abs().saturating_sub(error)
}

/// The server, as seen from this clock.
fn relation(offset_ms: i64) -> String {
    let side = if offset_ms >= 0 { "ahead of" } else { "behind" };
    format!("{} {side} this clock", span(offset_ms.unsigned_abs()))
}

fn wrong(certain: u64, offset_ms: i64) -> Draft {
    let severity = if certain > CRITICAL_MS {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let side = if offset_ms >= 0 { "slow" } else { "fast" };
    let summary = format!("The clock is {} {side}", span(offset_ms.unsigned_abs()));
    let mut draft = Draft::new("ntp_offset", Layer::Time, "clock", severity, summary);
    if severity == Severity::Critical {
        breaks_trust(&mut draft);
        draft.explains("TLS certificates, DNSSEC signatures and one-time passwords are refused");
    } else {
        draft.explains("Log lines of several devices can not be put in order");
    }
    draft.misses("why no daemon corrects it (`chronyc tracking`, `timedatectl timesync-status`)");
    draft.next(
        "Check that the time daemon runs and reaches its servers (`timedatectl`, `chronyc tracking`), then let it step \
         the clock once (`chronyc makestep`); if the clock is wrong again after a reboot, replace the RTC battery",
    );
    draft
}

/// Signatures and certificates are valid from one moment to another.
fn breaks_trust(draft: &mut Draft) {
    for cause in [
        "dnssec_failure",
        "certificate_expired",
        "certificate_not_yet_valid",
    ] {
        draft.covers(cause, None);
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Health};

    use crate::fixture::{Evidence, healthy, only, server};

    fn with(synchronised: Option<bool>, offsets: &[Option<i64>]) -> Evidence {
        let mut evidence = healthy(1);
        evidence.time.kernel_synchronised = synchronised;
        evidence.time.servers = offsets
            .iter()
            .enumerate()
            .map(|(number, offset)| server(&format!("198.18.77.{}", number + 1), *offset))
            .collect();
        evidence
    }

    #[test]
    fn servers_that_agree_name_the_side_and_the_size_of_the_error() {
        let verdict = with(Some(false), &[Some(301_000), Some(301_020)]).verdict();
        let finding = only(&verdict);
        assert_eq!(finding.summary.0, "The clock is 5 min slow");
        assert_eq!(
            (verdict.health, finding.confidence),
            (Health::Critical, Confidence::Certain)
        );
        assert_eq!(finding.proposal, None);
        let small = with(Some(false), &[Some(-2_500), Some(-2_400)]).verdict();
        assert_eq!(
            (small.health, only(&small).summary.0.as_str()),
            (Health::Warning, "The clock is 2.5 s fast")
        );
    }

    #[test]
    fn silent_lying_and_far_away_servers_do_not_alarm() {
        for offsets in [
            &[None, None][..],
            &[Some(40), Some(90_000)],
            &[Some(3), Some(-5), Some(7_200_000)],
            &[Some(999)],
        ] {
            assert_eq!(
                with(Some(false), offsets).verdict().health,
                Health::Healthy,
                "{offsets:?}"
            );
        }
        let mut far = with(None, &[Some(1_400)]);
        far.time.servers[0].rtt_us = Some(1_200_000);
        assert_eq!(far.verdict().health, Health::Healthy);
        let mut kiss_of_death = with(None, &[Some(90_000)]);
        kiss_of_death.time.servers[0].stratum = Some(0);
        assert_eq!(kiss_of_death.verdict().health, Health::Healthy);
    }

    #[test]
    fn one_server_against_a_disciplined_clock_is_only_suspected() {
        let verdict = with(Some(true), &[Some(90_000)]).verdict();
        let finding = only(&verdict);
        assert_eq!(
            (finding.confidence, finding.contradictions.len()),
            (Confidence::Suspected, 1)
        );
    }

    #[test]
    fn an_offset_at_the_edge_of_its_type_is_still_a_finding() {
        assert_eq!(
            with(None, &[Some(i64::MIN), Some(i64::MIN)])
                .verdict()
                .health,
            Health::Critical
        );
        assert_eq!(
            with(None, &[Some(i64::MIN), Some(i64::MAX)])
                .verdict()
                .health,
            Health::Healthy
        );
    }
}
