//! Records for the tests of this stage.

use aizen_protocol::id::{BootId, RoundId};
use aizen_protocol::record::{Body, Profile, Record};
use aizen_sanitizer::{Observation, Policy, Sanitized, Sanitizer, SanitizerKey};
use jiff::Timestamp;

/// A record whose agent version has `size` characters.
pub(super) fn record(size: usize) -> Sanitized<Record> {
    let observation = Observation::new(Record {
        round: RoundId(1),
        at: Timestamp::UNIX_EPOCH,
        boot: "boot-1".parse::<BootId>().unwrap(),
        body: Body::Profile(Profile {
            agent: "a".repeat(size),
            ..Profile::default()
        }),
    });
    let key = SanitizerKey::from_bytes([7; 32]);
    let sanitized = Sanitizer::new(key, Policy::default()).sanitize(observation);
    sanitized.unwrap_or_else(|_| panic!("withheld"))
}
