//! IPsec, as far as its daemon's log tells: suspected at most.

use aizen_protocol::finding::Severity;
use aizen_protocol::record::LogLine;

use super::draft::{Draft, Examined, Layer};
use super::log;
use crate::case::View;

const MINUTES: i64 = 10;
/// Daemons that speak IKE: strongSwan, Libreswan, iked.
const DAEMONS: [&str; 7] = [
    "charon",
    "charon-systemd",
    "strongswan",
    "ipsec",
    "pluto",
    "iked",
    "swanctl",
];
/// What they write once a connection is up (again).
const UP: [&str; 3] = ["established", "installed", "rekeyed"];

/// One way to fail: its name, what is written, what it means and what to do.
struct Failure {
    cause: &'static str,
    said: &'static [&'static str],
    summary: &'static str,
    next: &'static str,
}

const FAILURES: [Failure; 3] = [
    Failure {
        cause: "ipsec_authentication",
        said: &[
            "AUTHENTICATION_FAILED",
            "AUTH_FAILED",
            "authentication of",
            "INVALID_ID_INFORMATION",
        ],
        summary: "IPsec: the other end refuses who we are, or we refuse who it is",
        next: "Compare the identities and the key or certificate at both ends; with \
               certificates, check both clocks",
    },
    Failure {
        cause: "ipsec_proposal",
        said: &[
            "NO_PROPOSAL_CHOSEN",
            "TS_UNACCEPTABLE",
            "INVALID_KE_PAYLOAD",
        ],
        summary: "IPsec: both ends agree on no algorithm or no network",
        next: "Make the proposals (algorithms, DH groups) and the traffic selectors of both ends \
               the same",
    },
    Failure {
        cause: "ipsec_no_answer",
        said: &[
            "giving up after",
            "retransmission timeout",
            "peer not responding",
        ],
        summary: "IPsec: the other end does not answer",
        next: "Check that UDP ports 500 and 4500 reach the other end and that its daemon runs",
    },
];

pub(super) fn examine(view: &View<'_>) -> Examined {
    let mut examined = Examined::default();
    let up = newest(view, &UP);
    for failure in &FAILURES {
        let lines: Vec<&LogLine> = daemons(view, failure.said)
            .filter(|line| failure.cause != "ipsec_authentication" || is_refusal(line))
            .collect();
        let Some((first, last)) = lines.first().zip(lines.last()) else {
            continue;
        };
        // Came up since: it is over.
        if up.is_some_and(|up| up.at >= last.at) {
            continue;
        }
        let mut draft = Draft::new(
            failure.cause,
            Layer::Path,
            "ipsec",
            Severity::Warning,
            failure.summary.into(),
        );
        draft.shown("log", "ike", first.at, log::quote(last));
        if lines.len() > 1 {
            draft.noted(
                "log",
                last.at,
                format!("{} such lines within {MINUTES} min", lines.len()),
            );
        }
        draft.explains("Networks behind the IPsec connection may not be reached");
        draft.misses(
            "the state of the connections, because a log may be wrong (`swanctl --list-sas`, `ip \
             xfrm state`)",
        );
        draft.next(failure.next);
        examined.drafts.push(draft);
        break;
    }
    examined
}

/// `authentication of 'x' … successful` says the opposite.
fn is_refusal(line: &LogLine) -> bool {
    let said = line.text.0.to_ascii_lowercase();
    !said.contains("success") && !said.contains("authentication of") || said.contains("failed")
}

fn daemons<'a>(view: &View<'a>, said: &'a [&'a str]) -> impl Iterator<Item = &'a LogLine> {
    log::recent(view, MINUTES, said).filter(|line| DAEMONS.contains(&line.program.as_str()))
}

fn newest<'a>(view: &View<'a>, said: &'a [&'a str]) -> Option<&'a LogLine> {
    daemons(view, said).max_by_key(|line| line.at)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::Confidence;
    use aizen_protocol::record::{Body, LogLine};

    use crate::fixture::machine::log;
    use crate::fixture::{healthy, only};

    fn said(lines: Vec<LogLine>) -> aizen_protocol::finding::Verdict {
        let mut evidence = healthy(9);
        evidence.see(Body::Log(lines));
        evidence.verdict()
    }

    #[test]
    fn the_daemons_words_tell_the_three_failures_apart_and_are_only_suspected() {
        for (text, cause) in [
            ("giving up after 5 retransmits", "ipsec_no_answer"),
            ("received NO_PROPOSAL_CHOSEN notify error", "ipsec_proposal"),
            (
                "received AUTHENTICATION_FAILED notify error",
                "ipsec_authentication",
            ),
        ] {
            let verdict = said(vec![log(8, "charon", text)]);
            let finding = only(&verdict);
            assert_eq!(
                (finding.cause.0.as_str(), finding.confidence),
                (cause, Confidence::Suspected)
            );
            assert_eq!(finding.proposal, None);
        }
    }

    #[test]
    fn a_connection_that_came_up_since_a_success_and_another_programs_words_do_not_alarm() {
        for lines in [
            vec![
                log(7, "charon", "giving up after 5 retransmits"),
                log(8, "charon", "IKE_SA home[2] established"),
            ],
            vec![log(
                8,
                "charon",
                "authentication of 'gw' with RSA signature successful",
            )],
            vec![log(8, "sshd", "NO_PROPOSAL_CHOSEN")],
            vec![log(
                8,
                "charon",
                "retransmit 1 of request with message ID 0",
            )],
        ] {
            assert_eq!(said(lines).findings, []);
        }
    }
}
