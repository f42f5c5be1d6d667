//! The repair that a verdict proposes, proven: applied it mends, refused it leaves no trace.

use std::fs;
use std::time::Duration;

use aizen_protocol::finding::Verdict;
use aizen_protocol::package::Binding;
use aizen_protocol::package::manifest::{Manifest, Probe, Value};
use aizen_protocol::proposal::Proposal;
use anyhow::{Context as _, Result, bail};

use super::run::diagnose;
use super::scenario::Expect;
use super::stage::Stage;
use super::verdict::{Judged, is_mended};
use crate::cloud::text;
use crate::device::Device;
use crate::program::Program;
use crate::{package, wait};

/// What came of a proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Applied, it was confirmed and the device found the fault gone.
    pub mended: bool,
    /// Unconfirmed, it was rolled back to exactly the state before.
    pub rolled_back: bool,
}

/// Exit code of a change that was rolled back.
const ROLLED_BACK: i32 = 5;
/// What the device says to a person who must confirm; the change's name follows.
const CONFIRM: &str = "aizen changes confirm ";
/// Why the device refuses a package that names what it never saw.
const NOT_SEEN_YET: &str = "unknown_binding";
/// How long a change may take to its end.
const ENDS: Duration = Duration::from_secs(60);
/// How long the device may take to find the fault gone.
const HEALS: Duration = Duration::from_secs(30);

/// Applies the proposal twice, with a probe that can't hold and as it is, and notes what was proven.
///
/// # Errors
/// If there is no proposal, a program can't be run, or something is not proven; with what was seen instead.
pub fn prove(
    stage: &mut Stage,
    id: &str,
    expect: &Expect,
    verdict: &Verdict,
    proof: &mut Proof,
) -> Result<()> {
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

    let before = comparable(stage, expect)?;
    // Until its own rounds have met the fault, the device does not know what it calls the things in it.
    let (code, said) = wait::until("a device that has seen the fault", HEALS, || {
        let ended = apply(stage, id, "doomed", doomed.clone(), false);
        let is_early = matches!(&ended, Ok((_, said)) if said.contains(NOT_SEEN_YET));
        (!is_early).then_some(ended)
    })??;
    let after = comparable(stage, expect)?;
    proof.rolled_back = code == Some(ROLLED_BACK) && after == before;
    if !proof.rolled_back {
        bail!("the doomed change ended with {code:?}: {said}\nbefore:\n{before}\nafter:\n{after}");
    }
    let (code, said) = apply(stage, id, "repair", proposal, true)?;
    if code != Some(0) {
        bail!("the repair ended with {code:?}: {said}");
    }
    stage.follow_up(expect)?;
    heals(&stage.device, expect)?;
    proof.mended = true;
    Ok(())
}

/// The state without what the kernel learns by itself, where the scenario says that it does.
fn comparable(stage: &Stage, expect: &Expect) -> Result<String> {
    let state = stage.device.state_of_network()?;
    let is_learnt = |line: &&str| line.contains(" proto ra ") || line.contains(" dynamic ");
    let lines = state
        .lines()
        .filter(|line| !(expect.learns && is_learnt(line)));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// Waits until the device finds the fault gone.
fn heals(device: &Device, expect: &Expect) -> Result<()> {
    let mut told = String::new();
    let healthy = || {
        let verdict = diagnose(device, None).ok()?;
        told = Judged::healthy(&verdict).told;
        is_mended(expect, &verdict).then_some(())
    };
    wait::until("a verdict without the fault", HEALS, healthy)
        .with_context(|| format!("after the repair: {told}"))
}

fn apply(
    stage: &Stage,
    id: &str,
    name: &str,
    proposal: Proposal,
    confirmed: bool,
) -> Result<(Option<i32>, String)> {
    let mut package = package::for_device(&stage.device, id, &proposal.script, proposal.manifest)?;
    package.bindings = proposal.bindings;
    package.intent = proposal.intent.0;
    let key = package::key(&stage.cloud()?.approver_key())?;
    let file = stage.folder().join(name);
    fs::write(
        &file,
        serde_json::to_vec(&package::sign(&package, &[&key])?)?,
    )?;
    let log = stage.folder().join(format!("{name}.log"));
    let mut command = stage
        .device
        .aizen(&["apply", "--yes", "--json", text(&file)?])?;
    let mut program = Program::start(name, &mut command, &log)?;
    // A change on site is confirmed by the person there, as soon as it asks.
    let mut asked = !confirmed;
    let status = wait::until(&format!("'aizen apply' of {name}"), ENDS, || {
        let said = program.said();
        let change = said
            .split_once(CONFIRM)
            .and_then(|(_, rest)| rest.lines().next());
        if let Some(change) = change.filter(|_| !asked) {
            let answer = stage
                .device
                .try_aizen(&["changes", "confirm", change.trim()]);
            asked = answer.is_ok_and(|answer| answer.status.success());
        }
        program.ended()
    });
    Ok((status?.code(), program.said()))
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
