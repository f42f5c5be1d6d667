//! Whether an envelope is believed: the only maker of [`Verified`].
//!
//! The order of the checks is a contract; each has its own [`Reason`], and the first that fails is told:
//! size and strict form (before this module, in [`Envelope::parse`]) → payload type → signatures → strict payload →
//! schema and trust-document version → key may sign this → target and epoch → time → replay → length and SHA-256 →
//! the device's own policy → isolation. Storing the replay record is the executor's, right before it starts.

use aizen_protocol::envelope::{Envelope, Opened, PayloadType};
use aizen_protocol::id::{DeviceId, Digest, Epoch};
use aizen_protocol::outcome::Isolation;
use aizen_protocol::package::manifest::{Class, Risk};
use aizen_protocol::package::{DeliveryMode, Package, Rehearsal};
use aizen_protocol::reason::Reason;
use aizen_protocol::trust::TrustDocument;
use jiff::Timestamp;

pub mod freshness;
pub mod policy;
pub mod replay;
pub mod signer;

pub use freshness::Clock;
pub use policy::Policy;
pub use replay::Replay;

/// Everything a check needs to know about this device and this moment.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The wall clock.
    pub now: Timestamp,
    /// Who the device is.
    pub device: &'a DeviceId,
    /// Its state generation.
    pub epoch: &'a Epoch,
    /// Whom it trusts; none before enrollment.
    pub trust: Option<&'a TrustDocument>,
    /// What its operator allows.
    pub policy: &'a Policy,
    /// What it admitted before.
    pub replay: &'a Replay,
    /// A person paused changes.
    pub paused: bool,
    /// What the sandbox gives here.
    pub isolation: &'a Isolation,
}

/// A refusal: the code, and which thing exactly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct Refused {
    /// The code.
    pub reason: Reason,
    /// What exactly, for people; may be empty.
    pub detail: String,
}

impl Refused {
    /// A refusal that says what exactly.
    pub fn because(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::because(reason, "")
    }
}

/// A payload that passed every check of its door. Only this module makes one.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    content: T,
    digest: Digest,
    script: Vec<u8>,
    risk: Risk,
}

impl<T> Verified<T> {
    /// SHA-256 of the signed payload.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The exact bytes that run, length and checksum checked.
    #[must_use]
    pub fn script(&self) -> &[u8] {
        &self.script
    }

    /// The computed risk.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.risk
    }
}

impl Verified<Package> {
    /// The package.
    #[must_use]
    pub fn package(&self) -> &Package {
        &self.content
    }
}

impl Verified<Rehearsal> {
    /// The package, for the shadow alone.
    #[must_use]
    pub fn package(&self) -> &Package {
        &self.content.0
    }
}

/// Something that may run in the shadow: a rehearsal, or a package (a technician's `apply`). Never the reverse.
#[derive(Clone, Debug)]
pub enum Shadow {
    /// Signed for the shadow alone.
    Rehearsal(Verified<Rehearsal>),
    /// Signed for the device, tried in the shadow first.
    Package(Verified<Package>),
}

impl Shadow {
    /// What is rehearsed.
    #[must_use]
    pub fn package(&self) -> &Package {
        match self {
            Self::Rehearsal(rehearsal) => rehearsal.package(),
            Self::Package(package) => package.package(),
        }
    }

    /// The exact bytes that run.
    #[must_use]
    pub fn script(&self) -> &[u8] {
        match self {
            Self::Rehearsal(rehearsal) => rehearsal.script(),
            Self::Package(package) => package.script(),
        }
    }

    /// SHA-256 of the signed payload.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Rehearsal(rehearsal) => rehearsal.digest(),
            Self::Package(package) => package.digest(),
        }
    }
}

/// What of a package's life a caller asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is to run on the device.
    Execute,
    /// It is to run in the shadow: it changes nothing, so observe-only and paused devices do it too.
    Shadow,
}

/// Checks a package and, where it is confirmed over the uplink, the orchestrator's delivery of it.
///
/// # Errors
/// The first check that fails.
pub fn package(
    envelope: &Envelope,
    delivery: Option<&Envelope>,
    at: &Circumstances<'_>,
) -> Result<Verified<Package>, Refused> {
    let trust = at.trust.ok_or(Reason::NotEnrolled)?;
    let (opened, package) = open_package(envelope, trust)?;
    signer::of_package(&package, &opened, trust, at)?;
    if package.delivery == DeliveryMode::Uplink {
        signer::of_delivery(delivery, opened.digest(), trust, at)?;
    }
    check(package, &opened, Purpose::Execute, at)
}

/// Checks everything about a package that does not depend on who delivers it: for `aizen verify` and for a rehearsal
/// before `aizen apply`.
///
/// # Errors
/// The first check that fails.
pub fn undelivered(
    envelope: &Envelope,
    at: &Circumstances<'_>,
) -> Result<Verified<Package>, Refused> {
    let trust = at.trust.ok_or(Reason::NotEnrolled)?;
    let (opened, package) = open_package(envelope, trust)?;
    signer::of_package(&package, &opened, trust, at)?;
    check(package, &opened, Purpose::Execute, at)
}

/// Checks what is to run in the shadow.
///
/// # Errors
/// The first check that fails.
pub fn shadow(envelope: &Envelope, at: &Circumstances<'_>) -> Result<Shadow, Refused> {
    let trust = at.trust.ok_or(Reason::NotEnrolled)?;
    if envelope.payload_type() == PayloadType::Package.as_str() {
        let (opened, package) = open_package(envelope, trust)?;
        signer::of_package(&package, &opened, trust, at)?;
        return check(package, &opened, Purpose::Shadow, at).map(Shadow::Package);
    }
    rehearsal(envelope, at).map(Shadow::Rehearsal)
}

/// Checks a rehearsal package: signed by the orchestrator, for the shadow alone, for minutes.
///
/// # Errors
/// The first check that fails.
pub fn rehearsal(
    envelope: &Envelope,
    at: &Circumstances<'_>,
) -> Result<Verified<Rehearsal>, Refused> {
    let trust = at.trust.ok_or(Reason::NotEnrolled)?;
    let opened = envelope.open(PayloadType::Rehearsal, trust.signers())?;
    let Rehearsal(package) = Rehearsal::parse(opened.payload())?;
    trust_version(&package, trust)?;
    signer::of_rehearsal(&opened, trust, at)?;
    let checked = check(package, &opened, Purpose::Shadow, at)?;
    Ok(Verified {
        content: Rehearsal(checked.content),
        digest: checked.digest,
        script: checked.script,
        risk: checked.risk,
    })
}

fn open_package(envelope: &Envelope, trust: &TrustDocument) -> Result<(Opened, Package), Refused> {
    let opened = envelope.open(PayloadType::Package, trust.signers())?;
    let package = Package::parse(opened.payload())?;
    trust_version(&package, trust)?;
    Ok((opened, package))
}

fn trust_version(package: &Package, trust: &TrustDocument) -> Result<(), Refused> {
    if package.trust_version == trust.version {
        Ok(())
    } else {
        Err(Refused::because(
            Reason::TrustVersion,
            format!(
                "the package names {}, the device holds {}",
                package.trust_version, trust.version
            ),
        ))
    }
}

/// The checks after "who signed", in order.
fn check(
    package: Package,
    opened: &Opened,
    purpose: Purpose,
    at: &Circumstances<'_>,
) -> Result<Verified<Package>, Refused> {
    target(&package, at)?;
    freshness::check(&package, purpose == Purpose::Execute, at)?;
    if purpose == Purpose::Execute && at.replay.contains(&package.id, &opened.digest()) {
        return Err(Reason::Replayed.into());
    }
    let script = package.script.bytes()?;
    if package.manifest.class == Class::Direct && at.policy.capabilities.is_empty() {
        return Err(Refused::because(
            Reason::UnsupportedClass,
            "the device's policy gives no capability to a script",
        ));
    }
    if purpose == Purpose::Execute && package.manifest.class != Class::Diagnose {
        if !at.policy.allow_changes {
            return Err(Reason::ObserveOnly.into());
        }
        if at.paused {
            return Err(Reason::Paused.into());
        }
    }
    at.policy.check(&package)?;
    let wanted = package.manifest.min_isolation.max(at.policy.min_isolation);
    if at.isolation.level < wanted {
        return Err(Refused::because(
            Reason::IsolationUnreachable,
            missing_layers(wanted, at.isolation),
        ));
    }
    let risk = package.manifest.risk();
    Ok(Verified {
        content: package,
        digest: opened.digest(),
        script,
        risk,
    })
}

fn target(package: &Package, at: &Circumstances<'_>) -> Result<(), Refused> {
    let mut ours = package
        .target
        .iter()
        .filter(|target| target.device == *at.device)
        .peekable();
    if ours.peek().is_none() {
        return Err(Reason::WrongTarget.into());
    }
    if !ours.any(|target| target.epoch == *at.epoch) {
        return Err(Reason::WrongEpoch.into());
    }
    Ok(())
}

fn missing_layers(wanted: u8, isolation: &Isolation) -> String {
    let missing: Vec<String> = isolation
        .layers
        .iter()
        .filter(|layer| !layer.enforced)
        .map(|layer| format!("{} ({})", layer.name, layer.detail))
        .collect();
    format!(
        "level {wanted} is wanted, this kernel gives {}; missing: {}",
        isolation.level,
        missing.join(", ")
    )
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
