//! The same expert that the orchestrator runs, on the device: names the cause without an uplink.

use aizen_analyst::case::Case;
use aizen_analyst::expert;
use aizen_protocol::finding::Verdict;
use aizen_protocol::record::Record;
use aizen_sanitizer::{Observation, Sanitized};

/// Judges real values. The verdict holds real values, too: it is for this device's screen.
#[must_use]
pub fn local(observations: &[Observation]) -> Verdict {
    records(
        observations
            .iter()
            .map(|observation| Record::clone(&observation.local()))
            .collect(),
    )
}

/// Judges sanitized records. The verdict holds pseudonyms: the map on this device reveals them.
#[must_use]
pub fn sanitized(records: impl IntoIterator<Item = Sanitized<Record>>) -> Verdict {
    self::records(records.into_iter().map(Sanitized::into_inner).collect())
}

/// Judges records as they are: recorded ones hold pseudonyms, and so does the verdict.
#[must_use]
pub fn records(records: Vec<Record>) -> Verdict {
    expert::analyze(&Case::new(records))
}
