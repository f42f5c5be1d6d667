//! What one round sees: the kernel's tables first, then the probes that build on them, each within its budget.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aizen_protocol::record::Body;
use futures_util::FutureExt;
use jiff::Timestamp;

use crate::clock;
use crate::collect::{CollectError, Seen};

pub(super) mod door;
pub(super) mod host;
pub(super) mod probes;
pub(super) mod tables;

/// One collector's share of a round.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) collector: &'static str,
    pub(super) told: Told<Body>,
}

impl Part {
    pub(super) fn new<T>(
        collector: &'static str,
        told: Told<T>,
        wrap: impl FnOnce(T) -> Body,
    ) -> Self {
        Self {
            collector,
            told: told.map(wrap),
        }
    }
}

/// A collector's result and when it came.
#[derive(Debug)]
pub(super) struct Told<T> {
    pub(super) at: Timestamp,
    pub(super) result: Result<Seen<T>, CollectError>,
}

impl<T> Told<T> {
    pub(super) fn value(&self) -> Option<&T> {
        self.result.as_ref().ok().map(|seen| &seen.value)
    }

    pub(super) fn map<U>(self, wrap: impl FnOnce(T) -> U) -> Told<U> {
        let result = self.result.map(|seen| Seen {
            value: wrap(seen.value),
            gaps: seen.gaps,
        });
        Told {
            at: self.at,
            result,
        }
    }
}

/// Runs one collector within its budget; a panic ends it alone.
pub(super) async fn within<T>(
    budget: Duration,
    work: impl Future<Output = Result<Seen<T>, CollectError>>,
) -> Told<T> {
    let result = match tokio::time::timeout(budget, AssertUnwindSafe(work).catch_unwind()).await {
        Err(_) => Err(CollectError::DeadlinePassed(budget)),
        Ok(Err(_)) => Err(CollectError::Panicked),
        Ok(Ok(result)) => result,
    };
    Told {
        at: clock::now(),
        result,
    }
}
