//! Evidence into cases: the expert reads the newest rounds, its findings open, refresh or clear cases.

use std::sync::Arc;

use aizen_analyst::case::Case;
use aizen_analyst::expert;
use aizen_protocol::finding::{Finding, Verdict};
use aizen_protocol::id::{CaseId, DeviceId, Digest};
use aizen_protocol::record::{Body, Record};
use jiff::{SignedDuration, Timestamp};
use rusqlite::Transaction;
use serde_json::json;

use crate::app::App;
use crate::audit::{self, Event, Kind};
use crate::store::cases::{CaseRow, CaseState, Origin};
use crate::store::devices::Device;
use crate::store::proposals::ProposalState;
use crate::store::{StoreError, cases, devices, proposals, records};
use crate::{approve, clock, rehearse};

mod reconcile;

use reconcile::{Step, reconcile};

/// Rounds that the expert sees: the newest, and as many before it as tell what changed.
const ROUNDS: u32 = 16;

/// Analyzes the newest complete round of a device.
///
/// # Errors
/// If the store fails or the expert's thread ends without a verdict.
pub(crate) async fn newest_round(app: &Arc<App>, device: &DeviceId) -> Result<(), StoreError> {
    let name = device.clone();
    let evidence = app
        .store
        .transact(move |tx| records::newest_rounds(tx, &name, ROUNDS))
        .await?;
    let Some(evidence) = evidence else {
        return Ok(());
    };
    let began = round_began(&evidence.records);
    let verdict = tokio::task::spawn_blocking(move || {
        let case = Case::new(evidence.records);
        expert::analyze(&case)
    })
    .await?;
    tracing::debug!(%device, health = ?verdict.health, findings = verdict.findings.len(), "analyzed");
    let (work, name, now) = (app.clone(), device.clone(), clock::now());
    app.store
        .transact(move |tx| {
            let Some(device) = devices::by_id(tx, &name)? else {
                return Ok(());
            };
            devices::analyzed(tx, &name, &verdict)?;
            let seen = Seen {
                verdict: &verdict,
                began,
                evidence: &evidence.newest,
            };
            apply(tx, &work, &device, &seen, now)
        })
        .await
}

/// When the newest round began, by the device's clock.
fn round_began(records: &[Record]) -> Timestamp {
    let end = records.iter().rev().find_map(|record| match &record.body {
        Body::Round(round) => Some((record.at, round.took_ms)),
        _ => None,
    });
    let (at, took_ms) = end.unwrap_or((Timestamp::MIN, 0));
    at.checked_sub(SignedDuration::from_millis(took_ms.into()))
        .unwrap_or(at)
}

/// A verdict and what it rests on.
struct Seen<'a> {
    verdict: &'a Verdict,
    began: Timestamp,
    evidence: &'a [Digest],
}

fn apply(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    seen: &Seen<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let since = now.checked_sub(app.settings.hold_off).unwrap_or(now);
    let current = cases::current(tx, &device.device, since)?;
    for step in reconcile(seen.verdict, seen.began, &current) {
        match step {
            Step::Open(finding) => {
                let case = open(tx, device, finding, now)?;
                propose(tx, app, device, &case, finding, seen.evidence, now)?;
            }
            Step::Refresh(case, finding) => {
                cases::refresh(tx, &case.id, finding, now)?;
                if case.state == CaseState::Open && may_propose_again(tx, app, case, finding, now)?
                {
                    propose(tx, app, device, &case.id, finding, seen.evidence, now)?;
                }
            }
            Step::Absent(case) => cases::count_absence(tx, &case.id)?,
            Step::Clear(case) => clear(tx, device, case, now)?,
        }
    }
    Ok(())
}

fn open(
    tx: &Transaction<'_>,
    device: &Device,
    finding: &Finding,
    now: Timestamp,
) -> Result<CaseId, StoreError> {
    let case = CaseRow {
        id: CaseId::fresh(),
        device: device.device.clone(),
        origin: Origin::Expert,
        cause: finding.cause.0.clone(),
        component: finding.component.0.clone(),
        state: CaseState::Open,
        finding: Some(finding.clone()),
        note: "found, no repair is proposed".into(),
        opened_at: now,
        seen_at: now,
        closed_at: None,
        settled_on_device_at: None,
        absent: 0,
    };
    cases::insert(tx, &case)?;
    let event = Event {
        kind: Kind::CaseOpened,
        device: Some(&device.device),
        case: Some(&case.id),
        detail: json!({
            "cause": case.cause,
            "component": case.component,
            "severity": finding.severity,
            "confidence": finding.confidence,
            "summary": finding.summary,
        }),
    };
    audit::append(tx, event, now)?;
    Ok(case.id)
}

/// Another proposal for a case whose last one failed: at once if it is another one, else after the hold-off.
fn may_propose_again(
    tx: &Transaction<'_>,
    app: &App,
    case: &CaseRow,
    finding: &Finding,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some(last) = proposals::newest_of_case(tx, &case.id)? else {
        return Ok(true);
    };
    let rested = last
        .created_at
        .checked_add(app.settings.hold_off)
        .is_ok_and(|until| now >= until);
    let differs = finding.proposal.as_ref() != Some(&last.proposal);
    Ok(last.state == ProposalState::Failed && (rested || differs))
}

fn propose(
    tx: &Transaction<'_>,
    app: &App,
    device: &Device,
    case: &CaseId,
    finding: &Finding,
    evidence: &[Digest],
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(proposal) = &finding.proposal else {
        return Ok(());
    };
    if !device.takes_changes || app.signer.is_revoked(&device.device) {
        let note = if device.takes_changes {
            "a repair is known; the device is revoked"
        } else {
            "a repair is known; the device takes no changes until its operator allows them"
        };
        return cases::reach(tx, case, CaseState::Open, note);
    }
    rehearse::propose(tx, device, case, proposal.clone(), evidence.to_vec(), now).map(drop)
}

fn clear(
    tx: &Transaction<'_>,
    device: &Device,
    case: &CaseRow,
    now: Timestamp,
) -> Result<(), StoreError> {
    approve::withdraw(tx, case, now)?;
    let note = "the fault went away by itself";
    cases::close(tx, &case.id, CaseState::Cleared, note, None, now)?;
    let event = Event {
        kind: Kind::CaseCleared,
        device: Some(&device.device),
        case: Some(&case.id),
        detail: json!({}),
    };
    audit::append(tx, event, now)
}
