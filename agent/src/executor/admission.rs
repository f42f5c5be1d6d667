//! From an envelope to an admitted change: every check, the space, the replay record. Nothing is touched here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aizen_protocol::control::Bindings;
use aizen_protocol::envelope::Envelope;
use aizen_protocol::id::{ChangeId, Digest};
use aizen_protocol::package::manifest::{Class, Operation};
use aizen_protocol::package::{DeliveryMode, Package};
use aizen_protocol::reason::Reason;

use super::ExecutorError;
use super::ledger::{LedgerError, RESERVE};
use super::shared::{Shared, Shown};
use crate::broker;
use crate::change::Admission;
use crate::confirm::probe::Probes;
use crate::control::Peer;
use crate::execute::binding::{self, Values};
use crate::execute::{self, Ground, Poised};
use crate::rollback::journal::{FILE_RECORD, JournalError, RECORD};
use crate::store::StoreError;
use crate::verify::{self, Refused, Verified};

/// A change whose replay record is stored.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) change: ChangeId,
    /// The script, within its walls or while they are built.
    pub(crate) waiting: io::Result<Waiting>,
    pub(crate) package: Verified<Package>,
    pub(crate) values: Values,
    pub(crate) grants: Vec<Operation>,
    pub(crate) probes: Probes,
    pub(crate) effect_must_match: bool,
    pub(crate) min_isolation: u8,
    /// SHA-256 of the changes that were approved; none if this device doesn't know them.
    pub(crate) approved_changes: Option<Digest>,
}

/// A script that waits for the word, and what ends it early.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) sandbox: Poised,
    pub(crate) cancel: Arc<AtomicBool>,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// A check failed.
    Refused(Refused),
    /// The executor can't go on.
    Fatal(ExecutorError),
}

impl<T: Into<Refused>> From<T> for NotAdmitted {
    fn from(refused: T) -> Self {
        Self::Refused(refused.into())
    }
}

/// Values and operations of a package, checked against this device.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) values: Values,
    pub(crate) grants: Vec<Operation>,
}

/// Finds the values for a package's pseudonyms, puts them into its operations and asks the policy about the result.
pub(crate) fn resolve(
    shared: &Shared,
    package: &Package,
    script: &[u8],
    given: &Bindings,
) -> Result<Resolved, Refused> {
    if package.manifest.class == Class::Direct && shared.settings.execute.direct_user.is_none() {
        return Err(Refused::because(
            Reason::IsolationUnreachable,
            "a script with capabilities needs a user of its own, and this device has none: systemd-sysusers(8) makes aizen-script",
        ));
    }
    let values = {
        let sanitizer = shared.sanitizer().ok_or(Reason::NotEnrolled)?;
        binding::resolve(&package.bindings, given, script, |kind, real| {
            sanitizer.pseudonym_of(kind, real)
        })?
    };
    let grants = broker::resolve_grants(&package.manifest, &values)?;
    let policy = verify::Policy::load(&shared.settings.policy)
        .map_err(|e| Refused::because(Reason::PolicyDenied, e.to_string()))?;
    match grants.iter().find(|grant| !policy.allows(grant)) {
        Some(denied) => Err(Refused::because(
            Reason::PolicyDenied,
            format!("{denied:?}"),
        )),
        None => Ok(Resolved { values, grants }),
    }
}

/// Admits a package: afterwards it never runs again, whatever happens.
pub(crate) fn admit(
    shared: &Shared,
    envelope: &Envelope,
    delivery: Option<&Envelope>,
    bindings: &Bindings,
    peer: &Peer,
) -> Result<Admitted, NotAdmitted> {
    let (package, shown, effect_must_match, min_isolation) = shared.judge(|at| {
        let package = verify::package(envelope, delivery, at)?;
        let shown = shared.rehearsed(&package.package().deed()?);
        if at.policy.rehearsed_only {
            rehearsed(shown.as_ref(), package.package())?;
        }
        if at.policy.refuse_lock_outs && shown.as_ref().is_some_and(|s| s.locks_out) {
            return Err(Refused::because(
                Reason::PolicyDenied,
                "the rehearsal on this device showed a lock-out",
            ));
        }
        Ok((
            package,
            shown,
            at.policy.effect_must_match,
            at.policy.min_isolation,
        ))
    })?;
    free(shared, package.package().manifest.class)?;
    let content = package.package();
    let Resolved { values, grants } = resolve(shared, content, package.script(), bindings)?;
    let probes = Probes::declared(
        &content.manifest.confirm,
        &values,
        shared.settings.root.clone(),
    )?;
    reserve(shared, &grants)?;
    let admission = Admission {
        change: ChangeId::fresh(),
        package: content.id.clone(),
        digest: package.digest(),
        correlation_id: content.correlation_id.clone(),
        intent: content.intent.clone(),
        class: content.manifest.class,
        risk: package.risk(),
        delivery: content.delivery,
        confirm: content.manifest.confirm.clone(),
        approved_effect: content.effect,
        approved_changes: shown
            .filter(|shown| Some(shown.effect) == content.effect)
            .map(|shown| shown.changes),
        issued_at: content.issued_at,
        expires: content.expires,
        asked_by: peer.pid,
    };
    // Before anything is written: a memory without room would block every later start.
    shared.can_remember(&admission)?;
    // Every check is behind it: the walls go up while the records are stored.
    let waiting = wait(shared, &package, &values, &grants, min_isolation);
    let change = admission.change.clone();
    let moment = shared.moment();
    let fatal = |error: ExecutorError| {
        shared.failed.set(true);
        NotAdmitted::Fatal(error)
    };
    shared
        .ledger
        .borrow_mut()
        .admit(admission.clone(), &moment)
        .map_err(|e| fatal(e.into()))?;
    shared.remember_admission(&admission).map_err(fatal)?;
    Ok(Admitted {
        change,
        waiting,
        package,
        values,
        grants,
        probes,
        effect_must_match,
        min_isolation,
        approved_changes: admission.approved_changes,
    })
}

/// Has the sandbox built. What fails of it is told when the script would run, as every failure of it is.
fn wait(
    shared: &Shared,
    package: &Verified<Package>,
    values: &Values,
    grants: &[Operation],
    min_isolation: u8,
) -> io::Result<Waiting> {
    let cancel = Arc::new(AtomicBool::new(false));
    let ground = Ground {
        package,
        values,
        grants,
        min_isolation,
        world: &shared.world,
        settings: &shared.settings.execute,
    };
    let sandbox = execute::attempt::poise(ground, Arc::clone(&cancel))?;
    Ok(Waiting { sandbox, cancel })
}

/// What a person approved from afar is an effect: it must be the one that this device showed for exactly this deed.
fn rehearsed(shown: Option<&Shown>, package: &Package) -> Result<(), Refused> {
    if package.manifest.class == Class::Diagnose || package.delivery == DeliveryMode::OnSite {
        return Ok(());
    }
    if shown.is_some_and(|shown| Some(shown.effect) == package.effect) {
        return Ok(());
    }
    Err(Refused::because(
        Reason::PolicyDenied,
        "the approved effect is not one that this device rehearsed for exactly this script and manifest",
    ))
}

/// One change at a time, and none after a rollback that a person has not cleared.
fn free(shared: &Shared, class: Class) -> Result<(), Refused> {
    let ledger = shared.ledger.borrow();
    if let Some(pending) = ledger.open_change() {
        return Err(Refused::because(
            Reason::Busy,
            pending.admission().change.to_string(),
        ));
    }
    if shared.rescuing.get() {
        let why = "the network is being put back to the rescue profile";
        return Err(Refused::because(Reason::Busy, why));
    }
    if class != Class::Diagnose
        && let Some(blocking) = ledger.blocking()
    {
        return Err(Refused::because(
            Reason::RollbackIncomplete,
            blocking.admission().change.to_string(),
        ));
    }
    if shared.failed.get() {
        return Err(Reason::StorageFailed.into());
    }
    Ok(())
}

fn reserve(shared: &Shared, grants: &[Operation]) -> Result<(), Refused> {
    let told = |error: &dyn std::fmt::Display, reason| Refused::because(reason, error.to_string());
    // Each file and table is journalled as it was before it is written.
    let space = |grant: &Operation| match grant {
        Operation::File(_) | Operation::Uci(_) => FILE_RECORD as u64,
        Operation::Nft(_) => RECORD as u64,
        _ => 0,
    };
    let needed = RESERVE + grants.iter().map(space).sum::<u64>();
    // The journal's records, and the snapshot beside them.
    shared.store.require_space(2 * needed).map_err(|error| {
        let reason = match &error {
            StoreError::NoSpace { .. } => Reason::NoSpace,
            StoreError::Io { .. } | StoreError::TooLarge { .. } | StoreError::NotPrivate { .. } => {
                Reason::StorageFailed
            }
        };
        told(&error, reason)
    })?;
    let mut ledger = shared.ledger.borrow_mut();
    let reserved = ledger
        .rotate_if_long()
        .and_then(|()| ledger.reserve(needed));
    reserved.map_err(|error| {
        let full = matches!(&error, LedgerError::Journal(JournalError::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull);
        told(&error, if full { Reason::NoSpace } else { Reason::StorageFailed })
    })
}
