//! Refusals that name this device are recorded and reported, signed; a flood of them is only answered.

use std::collections::VecDeque;
use std::time::Duration;

use aizen_protocol::control::Refusal;
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::Digest;
use aizen_protocol::outcome::{End, Outcome};
use aizen_protocol::package::Package;
use aizen_protocol::private::Text;
use aizen_protocol::reason::Reason;

use super::ExecutorError;
use super::ledger::Entry;
use super::shared::Shared;
use crate::clock::BootTime;
use crate::report;
use crate::verify::Refused;

/// Refusals that are recorded in [`WINDOW`].
const RECORDED: usize = 16;
/// The time over which they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Refusals that may wait for an acknowledgement.
const WAITING: usize = 64;

/// What was refused lately.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    recent: VecDeque<(BootTime, Option<Digest>, Reason)>,
}

impl Refusals {
    /// True if this refusal is to be recorded: not the same again, and not one too many.
    fn is_due(&mut self, digest: Option<Digest>, reason: Reason, now: BootTime) -> bool {
        self.recent
            .retain(|(at, _, _)| now.0.saturating_sub(at.0) < WINDOW);
        let same = self
            .recent
            .iter()
            .any(|(_, d, r)| *d == digest && *r == reason);
        if same || self.recent.len() >= RECORDED {
            return false;
        }
        self.recent.push_back((now, digest, reason));
        true
    }

    /// Answers a refusal, and records and reports it if it is due.
    ///
    /// A replayed package is not reported again: its one outcome is another one.
    pub(crate) fn refuse(
        &mut self,
        shared: &Shared,
        envelope: &Envelope,
        refused: Refused,
    ) -> Refusal {
        let mut refusal = Refusal {
            reason: refused.reason,
            detail: refused.detail,
            signed: None,
        };
        let payload = envelope.unverified_payload().ok();
        let package = payload.as_deref().and_then(|p| Package::parse(p).ok());
        let digest = payload.as_deref().map(Digest::of);
        let ours = {
            let standing = shared.standing.borrow();
            let device = standing.as_ref().map(|s| &s.device);
            package
                .as_ref()
                .is_some_and(|p| p.target.iter().any(|t| Some(&t.device) == device))
        };
        if !ours || !self.is_due(digest, refusal.reason, shared.moment().since_boot) {
            return refusal;
        }
        let noted = shared.ledger.borrow_mut().note(&Entry::Refused {
            package: package.as_ref().map(|p| p.id.clone()),
            digest,
            reason: refusal.reason,
            moment: shared.moment(),
        });
        if let Err(error) = noted {
            tracing::error!(%error, "a refusal could not be journalled");
            shared.failed.set(true);
        }
        if refusal.reason != Reason::Replayed {
            refusal.signed = match signed(shared, package, digest, &refusal) {
                Ok(signed) => signed,
                Err(error) => {
                    tracing::error!(%error, "a refusal could not be reported");
                    None
                }
            };
        }
        refusal
    }
}

fn signed(
    shared: &Shared,
    package: Option<Package>,
    digest: Option<Digest>,
    refusal: &Refusal,
) -> Result<Option<Envelope>, ExecutorError> {
    let standing = shared.standing.borrow();
    let Some(standing) = standing.as_ref() else {
        return Ok(None);
    };
    if shared.outbox.len()? >= WAITING {
        return Ok(None);
    }
    let text = if refusal.detail.is_empty() {
        refusal.reason.sentence().to_owned()
    } else {
        refusal.detail.clone()
    };
    let outcome = Outcome {
        device: standing.device.clone(),
        epoch: standing.epoch.clone(),
        change: None,
        package: package.as_ref().map(|p| p.id.clone()),
        package_digest: digest,
        correlation_id: package.map(|p| p.correlation_id),
        end: End::Refused,
        reason: Some(refusal.reason),
        detail: Text(text),
        script: None,
        effect: None,
        approved_effect: None,
        approved_changes: None,
        isolation: shared.isolation.borrow().clone(),
        probes: Vec::new(),
        state_before: None,
        state_after: None,
        not_restored: Vec::new(),
        steps: Vec::new(),
        journal_head: Some(shared.ledger.borrow().head()),
    };
    let envelope = {
        let mut sanitizer = shared.sanitizer().ok_or(ExecutorError::NotEnrolled)?;
        report::sign(outcome, &mut sanitizer, &standing.result_key)?
    };
    let named = digest.map_or_else(String::new, |d| d.to_string());
    let name = format!("refused-{}-{named}", refusal.reason.code());
    shared.outbox.keep(&name, &envelope)?;
    Ok(shared.outbox.find(&name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    #[test]
    fn the_same_refusal_is_recorded_once_in_its_window_and_a_flood_is_cut() {
        let mut refusals = Refusals::default();
        let digest = |n: usize| Some(Digest::of(&n.to_be_bytes()));
        assert!(refusals.is_due(digest(0), Reason::Expired, at(0)));
        assert!(!refusals.is_due(digest(0), Reason::Expired, at(59)));
        assert!(refusals.is_due(digest(0), Reason::Busy, at(59)));
        assert!(refusals.is_due(digest(0), Reason::Expired, at(61)));
        let recorded = (1..1000)
            .filter(|n| refusals.is_due(digest(*n), Reason::BadSignature, at(62)))
            .count();
        assert_eq!(recorded, RECORDED - 2);
    }
}
