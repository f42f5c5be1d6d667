//! The same numbers as OTLP (<https://opentelemetry.io/docs/specs/otlp/>, JSON encoding), for a collector.
//!
//! They leave this process: only sanitized records are rendered.

use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Family, Kind, Sample, families};

/// An `ExportMetricsServiceRequest`. `started` is when the counters began: the device's boot.
#[must_use]
pub(super) fn request(records: &[Sanitized<Record>], started: Timestamp, now: Timestamp) -> Value {
    let records: Vec<Record> = records.iter().map(|record| record.get().clone()).collect();
    let families = families(&records);
    let told = families.iter().filter(|family| !family.samples.is_empty());
    let metrics: Vec<Value> = told.map(|family| metric(family, started, now)).collect();
    json!({
        "resourceMetrics": [{
            "resource": { "attributes": [attribute("service.name", "aizen")] },
            "scopeMetrics": [{
                "scope": { "name": "aizen", "version": env!("CARGO_PKG_VERSION") },
                "metrics": metrics,
            }],
        }],
    })
}

fn metric(family: &Family, started: Timestamp, now: Timestamp) -> Value {
    let points: Vec<Value> = family
        .samples
        .iter()
        .map(|sample| point(family.kind, sample, started, now))
        .collect();
    let mut metric = json!({ "name": family.name, "description": family.help });
    match family.kind {
        Kind::Counter => {
            // Since the start, only upwards.
            metric["sum"] = json!({
                "aggregationTemporality": CUMULATIVE,
                "isMonotonic": true,
                "dataPoints": points,
            });
        }
        Kind::Gauge => metric["gauge"] = json!({ "dataPoints": points }),
    }
    metric
}

fn point(kind: Kind, sample: &Sample, started: Timestamp, now: Timestamp) -> Value {
    let attributes = sample
        .labels
        .iter()
        .map(|(name, value)| attribute(name, value));
    let mut point = json!({
        "attributes": attributes.collect::<Vec<_>>(),
        // 64-bit integers are strings in protobuf's JSON.
        "timeUnixNano": now.as_nanosecond().to_string(),
        "asDouble": sample.value,
    });
    if kind == Kind::Counter {
        point["startTimeUnixNano"] = json!(started.as_nanosecond().to_string());
    }
    point
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u8 = 2;
