//! A rehearsal: checked like a package, run in the shadow, answered with the effect, sanitized and signed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aizen_protocol::control::{Bindings, ExecutorAnswer, Refusal};
use aizen_protocol::effect::{RehearsalResult, Rehearsed};
use aizen_protocol::envelope::{Envelope, PayloadType};
use aizen_protocol::id::Digest;
use aizen_protocol::package::manifest::Class;
use aizen_protocol::private::Text;
use aizen_sandbox::Powers;

use super::admission::{self, Resolved};
use super::login;
use super::shared::{Shared, Shown};
use crate::control::Peer;
use crate::execute::attempt::powers;
use crate::rehearse::{self, Login, ShadowRequest};
use crate::verify::{self, Refused, Shadow};

/// A rehearsal that passed every check.
#[derive(Debug)]
pub(crate) struct Prepared {
    shadow: Shadow,
    resolved: Resolved,
}

/// Checks a rehearsal package, or a package that is tried in the shadow first.
pub(crate) fn prepare(
    shared: &Shared,
    envelope: &Envelope,
    bindings: &Bindings,
) -> Result<Prepared, Refused> {
    let shadow = shared.judge(|at| verify::shadow(envelope, at))?;
    let resolved = admission::resolve(shared, shadow.package(), shadow.script(), bindings)?;
    Ok(Prepared { shadow, resolved })
}

/// Runs it and answers; a refusal is answered too, signed.
pub(crate) async fn run(
    shared: &Shared,
    envelope: &Envelope,
    prepared: Result<Prepared, Refused>,
    peer: &Peer,
) -> ExecutorAnswer {
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(refused) => return refuse(shared, envelope, refused),
    };
    let digest = prepared.shadow.digest();
    let deed = prepared.shadow.package().deed().ok();
    let login = peer.pid.and_then(|pid| login::of(Path::new("/proc"), pid));
    let request = match request(shared, prepared, login) {
        Ok(request) => request,
        Err(error) => return failed(&format!("the rehearsal could not be prepared: {error}")),
    };
    match rehearse::rehearse(request).await {
        Ok(effect) => match sign(
            shared,
            digest,
            deed,
            RehearsalResult::Effect(effect.clone()),
        ) {
            Some((signed, shown)) => {
                if let Some(shown) = shown {
                    shared.remember_rehearsal(shown);
                }
                ExecutorAnswer::Rehearsed {
                    local: effect,
                    signed,
                }
            }
            None => {
                failed("the effect holds something that must not leave, so it can't be reported")
            }
        },
        Err(error) => failed(&format!("the rehearsal failed: {error}")),
    }
}

fn request(
    shared: &Shared,
    prepared: Prepared,
    login: Option<Login>,
) -> std::io::Result<ShadowRequest> {
    let package = prepared.shadow.package();
    let manifest = &package.manifest;
    let direct = manifest.class == Class::Direct;
    Ok(ShadowRequest {
        grants: prepared.resolved.grants,
        script: prepared.shadow.script().to_vec(),
        interpreter: PathBuf::from(&package.interpreter),
        environment: prepared.resolved.values,
        reads: manifest.read.iter().map(PathBuf::from).collect(),
        limits: manifest.limits,
        timeout: Duration::from_secs(manifest.timeout_s.into()),
        root: shared.settings.root.clone(),
        grace: shared.settings.execute.grace,
        min_isolation: manifest.min_isolation,
        risk: manifest.risk(),
        uplink: shared.uplink(),
        uplink_port: shared.uplink_port(),
        login,
        user: if direct {
            shared.settings.execute.direct_user
        } else {
            shared.settings.execute.user
        },
        powers: if direct {
            powers(manifest)
        } else {
            Powers::default()
        },
        // The shadow gives it to the script as `change`.
        helper: shared.settings.execute.change_tool_file()?,
        ..ShadowRequest::default()
    })
}

fn refuse(shared: &Shared, envelope: &Envelope, refused: Refused) -> ExecutorAnswer {
    let text = if refused.detail.is_empty() {
        refused.reason.sentence().to_owned()
    } else {
        refused.detail.clone()
    };
    let result = RehearsalResult::Refused {
        reason: refused.reason,
        detail: Text(text),
    };
    // Without a payload there is nothing that an answer could name.
    let signed = envelope
        .unverified_payload()
        .ok()
        .and_then(|payload| sign(shared, Digest::of(&payload), None, result))
        .map(|(signed, _)| signed);
    ExecutorAnswer::Refused(Refusal {
        reason: refused.reason,
        detail: refused.detail,
        signed,
    })
}

/// The signed answer, and the effect in it as it leaves: that is what a person approves.
fn sign(
    shared: &Shared,
    package: Digest,
    deed: Option<Digest>,
    result: RehearsalResult,
) -> Option<(Envelope, Option<Shown>)> {
    let standing = shared.standing.borrow();
    let standing = standing.as_ref()?;
    let rehearsed = Rehearsed {
        device: standing.device.clone(),
        package,
        deed,
        result,
    };
    let sanitized = shared
        .sanitizer()?
        .sanitize_value(rehearsed)
        .inspect_err(|withheld| tracing::error!(%withheld, "an effect was withheld"))
        .ok()?;
    let payload = serde_json::to_vec(sanitized.get()).ok()?;
    let shown = match &sanitized.get().result {
        RehearsalResult::Effect(effect) => deed.map(|deed| Shown {
            deed,
            effect: effect.digest(),
            changes: effect.changes_digest(),
            locks_out: !effect.lock_outs.is_empty(),
        }),
        RehearsalResult::Refused { .. } => None,
    };
    let signed = Envelope::sign(PayloadType::Effect, &payload, &[&standing.result_key]);
    Some((signed, shown))
}

fn failed(message: &str) -> ExecutorAnswer {
    ExecutorAnswer::Failed {
        message: message.to_owned(),
    }
}
