//! The newest evidence as metrics: Prometheus text for whoever scrapes on this device.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units, `_total` for counters. Labels hold real
//! values where they stay on this device, and pseudonyms where an OpenTelemetry collector may send them on.

pub mod export;
mod families;
mod otlp;
pub mod serve;
mod text;

use std::borrow::Cow;

use aizen_protocol::record::Record;

pub use self::families::families;

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only upwards, until a restart.
    Counter,
    /// Any way.
    Gauge,
}

/// All samples of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name with unit and suffix.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Samples; their labels differ.
    pub samples: Vec<Sample>,
}

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, Cow<'static, str>)>,
    /// The number.
    pub value: f64,
}

/// The newest record of each kind, as Prometheus text (exposition format 0.0.4).
#[must_use]
pub fn text(records: &[Record]) -> String {
    text::render(&families(records))
}
