//! What a verdict means for the cases there are (pure).

use aizen_protocol::finding::{Finding, Health, Verdict};
use jiff::Timestamp;

use crate::store::cases::CaseRow;

/// A fault that so many verdicts in a row did not name went away, even if something else is wrong: a worse fault can
/// hide it for a while, and it is found again when that one is mended.
const ABSENT_VERDICTS: u32 = 3;

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// A fault without a case.
    Open(&'a Finding),
    /// A fault that has one.
    Refresh(&'a CaseRow, &'a Finding),
    /// A case that this verdict does not name.
    Absent(&'a CaseRow),
    /// A case whose fault went away.
    Clear(&'a CaseRow),
}

/// Compares a verdict with the cases that are open or were closed a short while ago.
///
/// A closed case holds its fault off: after a success while the evidence is from before its end, after anything else
/// as long as it is in `current`.
pub(super) fn reconcile<'a>(
    verdict: &'a Verdict,
    round_began: Timestamp,
    current: &'a [CaseRow],
) -> Vec<Step<'a>> {
    let named = |case: &CaseRow, finding: &Finding| {
        case.cause == finding.cause.0 && case.component == finding.component.0
    };
    let mut steps = Vec::new();
    for finding in &verdict.findings {
        let mut cases = current.iter().filter(|case| named(case, finding));
        match cases.clone().find(|case| case.closed_at.is_none()) {
            Some(open) => steps.push(Step::Refresh(open, finding)),
            None if cases.any(|closed| holds_off(closed, round_began)) => {}
            None => steps.push(Step::Open(finding)),
        }
    }
    let unnamed = current.iter().filter(|case| {
        case.closed_at.is_none()
            && !case.state.has_change()
            && !verdict.findings.iter().any(|finding| named(case, finding))
    });
    for case in unnamed {
        match verdict.health {
            Health::Healthy => steps.push(Step::Clear(case)),
            Health::Warning | Health::Critical if case.absent + 1 >= ABSENT_VERDICTS => {
                steps.push(Step::Clear(case));
            }
            Health::Warning | Health::Critical => steps.push(Step::Absent(case)),
            Health::Unknown => {}
        }
    }
    steps
}

fn holds_off(closed: &CaseRow, round_began: Timestamp) -> bool {
    use crate::store::cases::CaseState as State;
    match closed.state {
        State::Resolved | State::Diagnosed => closed
            .settled_on_device_at
            .is_some_and(|settled| round_began <= settled),
        // A fault that comes back by itself is a fault again.
        State::Cleared => false,
        State::Open
        | State::Rehearsing
        | State::Approval
        | State::Delivering
        | State::Running
        | State::RolledBack
        | State::RollbackIncomplete
        | State::Refused
        | State::Interrupted
        | State::Denied
        | State::Expired => true,
    }
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Cause, Confidence, Severity};
    use aizen_protocol::id::{CaseId, DeviceId};

    use super::*;
    use crate::store::cases::{CaseState, Origin};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn finding(cause: &str) -> Finding {
        Finding {
            cause: Cause(cause.into()),
            component: "wan".into(),
            severity: Severity::Critical,
            confidence: Confidence::Certain,
            summary: "".into(),
            since: at(0),
            evidence: Vec::new(),
            contradictions: Vec::new(),
            missing: Vec::new(),
            consequences: Vec::new(),
            next_step: "".into(),
            proposal: None,
        }
    }

    fn verdict(health: Health, causes: &[&str]) -> Verdict {
        Verdict {
            health,
            at: at(100),
            findings: causes.iter().map(|c| finding(c)).collect(),
            ruled_out: Vec::new(),
            unseen: Vec::new(),
        }
    }

    fn case(cause: &str, state: CaseState, closed: bool) -> CaseRow {
        CaseRow {
            id: CaseId::fresh(),
            device: DeviceId::fresh(),
            origin: Origin::Expert,
            cause: cause.into(),
            component: "wan".into(),
            state,
            finding: None,
            note: String::new(),
            opened_at: at(0),
            seen_at: at(0),
            closed_at: closed.then(|| at(50)),
            settled_on_device_at: closed.then(|| at(50)),
            absent: 0,
        }
    }

    #[test]
    fn an_open_case_is_refreshed_and_not_opened_twice() {
        let cases = [case("link_down", CaseState::Approval, false)];
        let seen = verdict(Health::Critical, &["link_down", "disk_full"]);
        assert_eq!(
            reconcile(&seen, at(99), &cases),
            [
                Step::Refresh(&cases[0], &seen.findings[0]),
                Step::Open(&seen.findings[1])
            ]
        );
    }

    #[test]
    fn a_healthy_verdict_clears_what_has_no_change_under_way() {
        let cases = [
            case("link_down", CaseState::Approval, false),
            case("disk_full", CaseState::Running, false),
            case("ntp_offset", CaseState::Resolved, true),
        ];
        let seen = verdict(Health::Healthy, &[]);
        assert_eq!(reconcile(&seen, at(99), &cases), [Step::Clear(&cases[0])]);
    }

    #[test]
    fn an_unknown_verdict_clears_nothing() {
        let cases = [case("link_down", CaseState::Open, false)];
        assert_eq!(
            reconcile(&verdict(Health::Unknown, &[]), at(99), &cases),
            []
        );
    }

    #[test]
    fn a_case_that_another_fault_hides_is_cleared_after_some_verdicts_only() {
        let mut cases = [case("disk_full", CaseState::Open, false)];
        let seen = verdict(Health::Critical, &["link_down"]);
        assert!(reconcile(&seen, at(99), &cases).contains(&Step::Absent(&cases[0])));
        cases[0].absent = ABSENT_VERDICTS - 1;
        assert!(reconcile(&seen, at(99), &cases).contains(&Step::Clear(&cases[0])));
    }

    #[test]
    fn a_repair_that_ended_without_success_is_not_proposed_again_at_once() {
        for state in [
            CaseState::RolledBack,
            CaseState::Denied,
            CaseState::Refused,
            CaseState::Expired,
        ] {
            let cases = [case("link_down", state, true)];
            let seen = verdict(Health::Critical, &["link_down"]);
            assert_eq!(reconcile(&seen, at(99), &cases), [], "{state}");
        }
    }

    #[test]
    fn evidence_from_before_a_repair_does_not_open_its_case_again_but_later_evidence_does() {
        let cases = [case("link_down", CaseState::Resolved, true)];
        let seen = verdict(Health::Critical, &["link_down"]);
        assert_eq!(reconcile(&seen, at(50), &cases), []);
        assert_eq!(
            reconcile(&seen, at(51), &cases),
            [Step::Open(&seen.findings[0])]
        );
    }
}
