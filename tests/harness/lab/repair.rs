//! The repair that a verdict proposes, proven: applied it mends, refused it leaves no trace.

use std::fs;
use std::time::Duration;

use aizen_protocol::finding::{Health, Verdict};
use aizen_protocol::package::Binding;
use aizen_protocol::package::manifest::{Manifest, Probe, Value};
use aizen_protocol::proposal::Proposal;
use anyhow::{Context as _, Result, bail};

use super::stage::Stage;
use crate::cloud::text;
use crate::{package, wait};

/// What came of a proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Applied, it was confirmed and the device found itself healthy.
    pub mended: bool,
    /// Unconfirmed, it was rolled back to exactly the state before.
    pub rolled_back: bool,
}

/// Exit code of a change that was rolled back.
const ROLLED_BACK: i32 = 5;
/// How long the device may take to find itself healthy.
const HEALS: Duration = Duration::from_secs(30);

/// Applies the proposal twice: with a probe that can't hold, and as it is.
///
/// # Errors
/// If there is no proposal or a program can't be run.
pub fn prove(stage: &Stage, id: &str, verdict: &Verdict) -> Result<Proof> {
    let proposal = verdict
        .findings
        .first()
        .and_then(|finding| finding.proposal.as_ref())
        .context("the finding carries no proposal")?;
    let mut proposal = renamed(stage, proposal)?;
    proposal.manifest.confirm.stable_s = 1;
    let mut doomed = proposal.clone();
    doomed.manifest.confirm.within_s = 5;
    let never = Probe::Dns(Value("nobody.invalid".into()));
    doomed.manifest.confirm.probes.push(never);

    let before = stage.device.state_of_network()?;
    let code = apply(stage, id, "doomed", doomed)?;
    let rolled_back = code == Some(ROLLED_BACK) && stage.device.state_of_network()? == before;
    let mended = apply(stage, id, "repair", proposal)? == Some(0) && heals(stage);
    Ok(Proof {
        mended,
        rolled_back,
    })
}

fn heals(stage: &Stage) -> bool {
    let healthy = || {
        let verdict = super::run::diagnose(&stage.device).ok()?;
        (verdict.health == Health::Healthy).then_some(())
    };
    wait::until("a healthy verdict", HEALS, healthy).is_ok()
}

fn apply(stage: &Stage, id: &str, name: &str, proposal: Proposal) -> Result<Option<i32>> {
    let mut package = package::for_device(&stage.device, id, &proposal.script, proposal.manifest)?;
    package.bindings = proposal.bindings;
    package.intent = proposal.intent.0;
    let key = package::key(&stage.cloud()?.approver_key())?;
    let file = stage.folder().join(name);
    fs::write(
        &file,
        serde_json::to_vec(&package::sign(&package, &[&key])?)?,
    )?;
    let output = stage
        .device
        .try_aizen(&["apply", "--yes", "--json", text(&file)?])?;
    let code = output.status.code();
    if !matches!(code, Some(0 | ROLLED_BACK)) {
        bail!(
            "'aizen apply' of {name} ended with {code:?}: {}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            stage.device.said()
        );
    }
    Ok(code)
}

/// A verdict on the device names real values; a package names their pseudonyms.
fn renamed(stage: &Stage, proposal: &Proposal) -> Result<Proposal> {
    let mut names = Vec::new();
    let mut bindings = Vec::new();
    for old in &proposal.bindings {
        let new = Binding {
            kind: old.kind,
            pseudonym: stage.device.pseudonym(&old.pseudonym)?,
        };
        names.push((old.variable(), new.variable()));
        bindings.push(new);
    }
    let manifest = rename(&serde_json::to_string(&proposal.manifest)?, &names);
    let manifest: Manifest = serde_json::from_str(&manifest)?;
    Ok(Proposal {
        intent: proposal.intent.clone(),
        script: rename(&proposal.script, &names),
        manifest,
        bindings,
    })
}

/// Replaces whole words.
fn rename(text: &str, names: &[(String, String)]) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut renamed = String::new();
    for piece in text.split_inclusive(|c| !in_word(c)) {
        let word = piece.trim_end_matches(|c| !in_word(c));
        let new = names.iter().find(|(old, _)| old == word);
        renamed.push_str(new.map_or(word, |(_, new)| new));
        renamed.push_str(&piece[word.len()..]);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_renamed_and_one_that_begins_like_it_is_not() {
        let names = [("IP_10_0_0_1".to_owned(), "IP_x".to_owned())];
        assert_eq!(
            rename("via \"$IP_10_0_0_1\" $IP_10_0_0_12", &names),
            "via \"$IP_x\" $IP_10_0_0_12"
        );
    }
}
