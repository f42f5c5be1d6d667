//! Payload bytes: written once, stored, signed and carried; never made again from the parsed form.

use aizen_protocol::id::{Digest, PackageId};
use aizen_protocol::limit;
use aizen_protocol::package::{DeliveryMode, Package, SCHEMA, Script, Target};
use aizen_protocol::reason::Reason;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

use crate::store::devices::Device;
use crate::store::proposals::ProposalRow;

/// A device's clock may lag this much behind ours.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);
/// How long a rehearsal package is valid.
const REHEARSAL_LIFE: Duration = Duration::from_secs(10 * 60);

/// What the composer must know besides the proposal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Version of the trust document.
    pub(crate) trust_version: u64,
    /// When it is composed.
    pub(crate) now: Timestamp,
}

/// The payload of a rehearsal.
///
/// # Errors
/// The first bound of the protocol that the proposal violates.
pub(crate) fn rehearsal(
    terms: Terms,
    proposal: &ProposalRow,
    device: &Device,
) -> Result<Vec<u8>, Reason> {
    package(terms, proposal, device, None, REHEARSAL_LIFE)
}

/// The payload that a person signs, with the digest of the effect that the person sees.
///
/// # Errors
/// The first bound of the protocol that the proposal violates.
pub(crate) fn approvable(
    terms: Terms,
    proposal: &ProposalRow,
    device: &Device,
    effect: Digest,
    life: Duration,
) -> Result<Vec<u8>, Reason> {
    package(terms, proposal, device, Some(effect), life)
}

fn package(
    terms: Terms,
    row: &ProposalRow,
    device: &Device,
    effect: Option<Digest>,
    life: Duration,
) -> Result<Vec<u8>, Reason> {
    let proposal = &row.proposal;
    if proposal.script.len() > limit::SCRIPT {
        return Err(Reason::TooLarge);
    }
    let package = Package {
        schema: SCHEMA,
        id: PackageId::fresh(),
        issuer: "aizen-orchestrator".into(),
        trust_version: terms.trust_version,
        issued_at: terms.now,
        not_before: not_before(terms.now),
        expires: terms.now.checked_add(life).map_err(|_| Reason::Expired)?,
        target: vec![Target {
            device: device.device.clone(),
            epoch: device.epoch.clone(),
        }],
        interpreter: "/bin/sh".into(),
        script: Script::of(proposal.script.as_bytes()),
        bindings: proposal.bindings.clone(),
        manifest: proposal.manifest.clone(),
        delivery: DeliveryMode::Uplink,
        intent: sentence(&proposal.intent.0),
        evidence: row.evidence.clone(),
        effect,
        correlation_id: row.correlation_id.clone(),
    };
    package.check_form()?;
    let payload = package.to_payload()?;
    // The envelope carries it in base64 with signatures beside it.
    if payload.len() > limit::ENVELOPE / 4 * 3 - 4096 {
        return Err(Reason::TooLarge);
    }
    Ok(payload)
}

/// When a package that is composed at `now` begins to be valid.
pub(crate) fn not_before(now: Timestamp) -> Timestamp {
    now.checked_sub(CLOCK_SKEW).unwrap_or(now)
}

fn sentence(text: &str) -> String {
    text[..text.floor_char_boundary(limit::SENTENCE)].to_owned()
}
