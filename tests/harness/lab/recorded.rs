//! Scenarios for what no namespace can break: the evidence of a healthy device, with the fault's fields as the kernel
//! would tell them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aizen_analyst::case::Case;
use aizen_analyst::expert;
use aizen_protocol::finding::Verdict;
use aizen_protocol::record::Record;
use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::scenario::{Expect, HOME, sorted, stem};
use super::verdict::Judged;

/// Seconds between two passes, as the daemon makes them.
const PAUSE_S: i64 = 10;
/// Name of the capture that all others are laid over.
const BASE: &str = "base";

/// One recorded scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// From its file.
    #[serde(skip)]
    pub name: String,
    /// One sentence.
    pub title: String,
    /// The fault's number in the list of faults; 0 for none.
    pub row: u8,
    /// Family, as of the scenarios that run.
    pub family: String,
    /// Which documents say that the kernel tells it so.
    pub source: String,
    /// Laid over the capture in every pass: the healthy twin has it, too.
    #[serde(default)]
    pub every: Map<String, Value>,
    /// Laid over each pass, the oldest first.
    pub passes: Vec<Map<String, Value>>,
    /// What the verdict must be.
    #[serde(default)]
    pub expect: Option<Expect>,
    /// No fault must be found.
    #[serde(default)]
    pub healthy: bool,
}

/// Every recorded scenario, by name.
///
/// # Errors
/// Names the file that is not one.
pub fn all() -> Result<Vec<Recorded>> {
    let mut all = Vec::new();
    for file in sorted(&Path::new(HOME).join("recorded"))? {
        if file.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let mut recorded: Recorded =
            serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        recorded.name = stem(&file);
        if recorded.healthy == recorded.expect.is_some() {
            bail!(
                "{}: it is either healthy or expects a cause",
                file.display()
            );
        }
        all.push(recorded);
    }
    Ok(all)
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The verdict beside what was expected.
    pub judged: Judged,
    /// The same evidence without the fault.
    pub twin: Judged,
    /// Processor time of the expert alone.
    pub cpu: Duration,
    /// The verdict.
    pub verdict: Verdict,
}

impl Recorded {
    /// The records of every pass: of the fault, or without it.
    ///
    /// # Errors
    /// If a patch fits nothing, or makes what is no record.
    pub fn records(&self, fault: bool) -> Result<Vec<Record>> {
        let base = base()?;
        let mut records = Vec::new();
        for (number, patch) in (0_i64..).zip(&self.passes) {
            let mut pass = base.clone();
            lay(&mut pass, &self.every)?;
            if fault {
                lay(&mut pass, patch)?;
            }
            for value in pass {
                let mut record: Record = serde_json::from_value(value.clone())
                    .with_context(|| format!("{}: no record: {value}", self.name))?;
                record.round.0 += u64::try_from(number).unwrap_or(0) * 1000;
                record.at = later(record.at, number)?;
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Asks the expert.
    ///
    /// # Errors
    /// As [`Recorded::records`].
    pub fn replay(&self) -> Result<Replayed> {
        let records = self.records(true)?;
        let began = thread_time()?;
        let verdict = expert::analyze(&Case::new(records));
        let cpu = thread_time()?.saturating_sub(began);
        let judged = match &self.expect {
            Some(expect) => Judged::fault(expect, &verdict),
            None => Judged::healthy(&verdict),
        };
        let twin = Judged::healthy(&expert::analyze(&Case::new(self.records(false)?)));
        Ok(Replayed {
            judged,
            twin,
            cpu,
            verdict,
        })
    }
}

fn later(at: Timestamp, passes: i64) -> Result<Timestamp> {
    Ok(at.checked_add(SignedDuration::from_secs(PAUSE_S * passes))?)
}

fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn base() -> Result<Vec<Value>> {
    let file = Path::new(HOME).join(format!("recorded/{BASE}.jsonl"));
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| file.display().to_string()))
        .collect()
}

/// Lays values over the records of one pass by their kind; a kind that the capture lacks is added.
fn lay(pass: &mut Vec<Value>, patch: &Map<String, Value>) -> Result<()> {
    for (kind, value) in patch {
        let place = pass
            .iter()
            .position(|record| record["body"]["kind"] == *kind);
        if let Some(place) = place {
            merge(&mut pass[place]["body"]["value"], value)
                .with_context(|| format!("the patch of {kind}"))?;
            continue;
        }
        let mut added = pass.first().context("the capture is empty")?.clone();
        added["body"] = json!({"kind": kind, "value": value});
        pass.insert(0, added);
    }
    Ok(())
}

/// A merge patch (RFC 7396) that reaches into arrays: `"FIELD=VALUE"` names an element, `"+"` appends.
fn merge(target: &mut Value, patch: &Value) -> Result<()> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    if let Value::Array(elements) = target {
        for (key, value) in patch {
            if key == "+" {
                let more = value.as_array().context("'+' appends an array")?;
                elements.extend(more.iter().cloned());
                continue;
            }
            let (field, wanted) = key
                .split_once('=')
                .context("'FIELD=VALUE' names an element")?;
            let is_it = |element: &&mut Value| {
                let there = &element[field];
                there
                    .as_str()
                    .map_or_else(|| there.to_string(), str::to_owned)
                    == wanted
            };
            let element = elements.iter_mut().find(is_it);
            merge(element.with_context(|| format!("no element {key}"))?, value)?;
        }
        return Ok(());
    }
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target[key] = Value::Null;
        } else {
            merge(&mut target[key], value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_makes_records_and_says_its_source() {
        let all = all().unwrap();
        assert!(all.len() >= 15, "{}", all.len());
        for recorded in all {
            recorded
                .records(true)
                .unwrap_or_else(|e| panic!("{}: {e:#}", recorded.name));
            recorded
                .records(false)
                .unwrap_or_else(|e| panic!("{}: {e:#}", recorded.name));
            assert!(recorded.source.len() > 10, "{}", recorded.name);
        }
    }

    #[test]
    fn a_patch_reaches_into_arrays_and_misses_nothing_silently() {
        let mut links = json!([{"name": "a", "mtu": 1500}, {"name": "b", "mtu": 1500}]);
        merge(
            &mut links,
            &json!({"name=b": {"mtu": 9000}, "+": [{"name": "c"}]}),
        )
        .unwrap();
        assert_eq!(
            links,
            json!([{"name": "a", "mtu": 1500}, {"name": "b", "mtu": 9000}, {"name": "c"}])
        );
        assert!(merge(&mut links, &json!({"name=z": {"mtu": 1}})).is_err());
    }
}
