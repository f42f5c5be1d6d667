//! Time servers that nobody hears from while the rest of the network works.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::Time;

use crate::case::{Seen, View};
use crate::expert::draft::{Draft, Layer};
use crate::expert::question;
use crate::expert::trend;
use crate::expert::unit::list;

/// Readings in a row without any answer.
const READINGS: usize = 2;
/// Exchanges without an answer, over these readings.
const EXCHANGES: usize = 4;

pub(super) fn examine(view: &View<'_>) -> Option<Draft> {
    let silent: Vec<&Seen<Time>> = trend::readings(view, |pass| pass.time.as_ref())
        .take_while(|seen| is_silent(&seen.value))
        .collect();
    let asked: usize = silent.iter().map(|seen| seen.value.servers.len()).sum();
    let newest = silent.first()?;
    // A daemon that disciplines the clock has a server that answers, whatever those asked here do.
    if silent.len() < READINGS
        || asked < EXCHANGES
        || newest.value.kernel_synchronised == Some(true)
    {
        return None;
    }
    // Other UDP must work, and as far out: otherwise the fault is a lower one.
    let control = question::tallies(view.now())
        .into_iter()
        .find(|tally| tally.served > 0 && view.way_to(tally.resolver).beyond.is_some())?;
    let servers = list(newest.value.servers.iter().map(|server| server.server));
    let mut draft = Draft::new(
        "ntp_unreachable",
        Layer::Time,
        "clock",
        Severity::Warning,
        "No time server answers, while other UDP works".into(),
    );
    draft.rests_on = newest
        .value
        .servers
        .first()
        .map(|server| view.way_to(server.server));
    let oldest = silent.last().map_or(newest.at, |seen| seen.at);
    let fact = format!(
        "{servers} answered none of {asked} requests in {} tries",
        silent.len()
    );
    draft.shown("time", "servers", oldest, fact);
    draft.backed("dns", "control", control.at, control.fact());
    if newest.value.kernel_synchronised == Some(false) {
        let fact = "the kernel says that no daemon disciplines the clock";
        draft.backed("time", "kernel", newest.at, fact.into());
    }
    draft.explains(
        "The clock drifts; after a restart it may be wrong enough for TLS and DNSSEC to fail",
    );
    draft.misses(
        "whether UDP port 123 leaves and who drops it (`aizen trace` to a server, `nft list \
         ruleset`)",
    );
    draft.next(format!(
        "Allow UDP port 123 towards {servers} or name time servers inside the network in the \
         time daemon's configuration"
    ));
    Some(draft)
}

fn is_silent(time: &Time) -> bool {
    !time.servers.is_empty()
        && time
            .servers
            .iter()
            .all(|server| server.offset_ms.is_none() && server.stratum.is_none())
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Confidence, Severity};

    use crate::fixture::{ANCHOR, Evidence, healthy, machine::history, only, server, verdict};

    fn silence(evidence: &mut Evidence, synchronised: Option<bool>) {
        evidence.time.kernel_synchronised = synchronised;
        evidence.time.servers = vec![server("198.18.77.1", None), server("198.18.77.2", None)];
    }

    #[test]
    fn servers_that_never_answer_while_dns_does_are_blocked() {
        let rounds = history(3, |round, evidence| {
            if round > 1 {
                silence(evidence, Some(false));
            }
        });
        let verdict = verdict(&rounds);
        let finding = only(&verdict);
        assert_eq!(finding.cause.0, "ntp_unreachable");
        assert_eq!(
            (finding.severity, finding.confidence),
            (Severity::Warning, Confidence::Certain)
        );
        assert_eq!(finding.since, crate::fixture::at(2));
    }

    #[test]
    fn one_try_one_answer_and_a_disciplined_clock_do_not_alarm() {
        let mut once = healthy(2);
        silence(&mut once, Some(false));
        assert_eq!(verdict(&[healthy(1), once]).findings, []);
        let disciplined = history(4, |_, evidence| silence(evidence, Some(true)));
        assert_eq!(verdict(&disciplined).findings, []);
        let one_lives = history(4, |_, evidence| {
            silence(evidence, Some(false));
            evidence.time.servers.push(server(ANCHOR, Some(4)));
        });
        assert_eq!(verdict(&one_lives).findings, []);
    }

    #[test]
    fn with_nothing_outside_it_is_no_fault_of_its_own() {
        let cut = history(3, |_, evidence| {
            evidence.silence_outside();
            silence(evidence, Some(false));
        });
        assert_eq!(only(&verdict(&cut)).cause.0, "upstream_dead");
    }
}
