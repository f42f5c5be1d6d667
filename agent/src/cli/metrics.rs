//! `aizen metrics`: the daemon's newest numbers.
//!
//! Without `--json` the Prometheus text as it is; with it one object:
//!
//! ```json
//! {"metrics": [{"name": "aizen_link_up", "kind": "gauge", "help": "…",
//!   "samples": [{"labels": {"link": "wan"}, "value": 1.0}]}]}
//! ```
//!
//! `value` is null where the number is none (NaN).

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;

use aizen_protocol::control::{DaemonAnswer, DaemonRequest};
use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::json;

use super::show;
use crate::config::Config;
use crate::control::Connection;

#[derive(Debug, Default, PartialEq, Serialize)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    samples: Vec<Sample<'a>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Sample<'a> {
    labels: BTreeMap<&'a str, String>,
    value: f64,
}

pub(super) async fn metrics(config: &Config, as_json: bool) -> anyhow::Result<ExitCode> {
    match Connection::connect(&config.paths.daemon_socket())
        .await?
        .ask(&DaemonRequest::Metrics)
        .await?
    {
        DaemonAnswer::Metrics { text } => {
            let mut out = io::stdout().lock();
            if as_json {
                let families = read(&text).context("the daemon's metrics are no such text")?;
                show::json(&mut out, &json!({ "metrics": families }))?;
            } else {
                out.write_all(text.as_bytes())?;
            }
            out.flush()?;
            Ok(ExitCode::SUCCESS)
        }
        DaemonAnswer::Failed { message } => bail!(message),
        DaemonAnswer::Done
        | DaemonAnswer::Status(_)
        | DaemonAnswer::Remembered { .. }
        | DaemonAnswer::Values { .. } => {
            bail!("the daemon answered another question")
        }
    }
}

/// Reads the text that `crate::metrics` writes: each family begins with HELP and TYPE. None for anything else.
fn read(text: &str) -> Option<Vec<Family<'_>>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ')?;
            families.push(Family {
                name,
                help,
                ..Family::default()
            });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.last_mut()?.kind = rest.split_once(' ')?.1;
        } else {
            let family = families.last_mut()?;
            family
                .samples
                .push(sample(line.strip_prefix(family.name)?)?);
        }
    }
    Some(families)
}

/// `{link="wan"} 1` or ` 1`.
fn sample(mut rest: &str) -> Option<Sample<'_>> {
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (name, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(name, value);
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.trim().parse().ok()?;
    Some(Sample { labels, value })
}

/// Up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_the_labels_hold() {
        let text = "# HELP aizen_x X of y.\n# TYPE aizen_x gauge\n\
                    aizen_x{link=\"a\\\"} 1\\nb\\\\\",kind=\"\"} 1.5\naizen_x 2\n";
        let families = read(text).unwrap();
        assert_eq!(families.len(), 1);
        assert_eq!((families[0].kind, families[0].help), ("gauge", "X of y."));
        let first = &families[0].samples[0];
        assert_eq!(first.labels["link"], "a\"} 1\nb\\");
        assert_eq!(first.labels["kind"], "");
        assert!((first.value - 1.5).abs() < f64::EPSILON);
        assert!(families[0].samples[1].labels.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "(# HELP a b\n)?(a|\\{|\\}|=\"|\"|\\\\|,|é| |1|\n){0,30}") {
            let _ = read(&text);
        }
    }
}
