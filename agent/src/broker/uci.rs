//! Configuration of OpenWrt: one key of one file, as `uci set` and `uci commit` together, and telling procd of it.

use std::path::Path;

use aizen_protocol::id::Digest;

use super::{BrokerError, Plan, World};
use crate::rollback::checkpoint::Scope;
use crate::rollback::file::{FileError, FileState, Regular};
use crate::rollback::inverse::{Inverse, KeyChange, UndoError};
use crate::rollback::service::{self, ServiceError};
use crate::rollback::uci::{Edit, File, Held, Key, UciError};

/// Where `uci set` keeps what is not committed.
const PENDING: &str = "tmp/.uci";

/// What is wrong with a change of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum UciChangeError {
    /// The statement.
    #[error(transparent)]
    Uci(#[from] UciError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No such package.
    #[error("/etc/config/{0} does not exist")]
    NoPackage(String),
    /// Somebody else is in the middle of a change.
    #[error("{0} has changes of somebody else that are not committed: see 'uci changes {0}'")]
    Pending(String),
    /// Nobody to tell.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// What is about to be done.
pub(super) enum Act {
    Write(super::file::Act),
    Announce(World, String),
}

impl Act {
    pub(super) async fn run(&self) -> Result<(), UndoError> {
        match self {
            Self::Write(act) => Ok(act.run().await?),
            Self::Announce(world, package) => Ok(service::announce(world, package).await?),
        }
    }
}

/// The file of a package.
pub(crate) fn path(package: &str) -> String {
    format!("/etc/config/{package}")
}

pub(super) fn plan(
    world: &World,
    scope: &Scope,
    key: Key,
    edit: &Edit,
) -> Result<Option<Plan>, BrokerError> {
    let shown = key.to_string();
    looked_at(world, scope, key, edit).map_err(|source| BrokerError::Uci { key: shown, source })
}

fn looked_at(
    world: &World,
    scope: &Scope,
    key: Key,
    edit: &Edit,
) -> Result<Option<Plan>, UciChangeError> {
    let package = key.package().to_owned();
    let path = path(&package);
    if is_pending(&world.root.join(PENDING).join(&package)) {
        return Err(UciChangeError::Pending(package));
    }
    let place = scope.place(&world.root, &path)?;
    let before = match &place {
        Some(place) => place.read()?,
        None => FileState::Absent,
    };
    let (Some(place), FileState::Regular(file)) = (place, &before) else {
        return Err(UciChangeError::NoPackage(package));
    };
    let parsed = File::parse(&file.content)?;
    let held = parsed.get(&key)?;
    let edited = parsed.edit(&key, edit)?;
    let now = edited.get(&key)?;
    let content = edited.into_text().into_bytes();
    if content == file.content {
        return Ok(None);
    }
    let after = Digest::of(&content);
    let state = FileState::Regular(Regular {
        content,
        ..file.clone()
    });
    Ok(Some(Plan {
        inverse: Inverse::Uci {
            path,
            before,
            after: vec![after],
            keys: vec![KeyChange {
                key,
                before: held,
                after: now,
            }],
        },
        act: super::Act::Uci(Act::Write(super::file::Act::new(place, state))),
    }))
}

fn is_pending(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.len() > 0)
}

pub(super) fn plan_reload(world: &World, package: String) -> Result<Option<Plan>, BrokerError> {
    if !service::can_announce(world) {
        return Err(BrokerError::Uci {
            key: format!("reload {package}"),
            source: ServiceError::NoUbus.into(),
        });
    }
    Ok(Some(Plan {
        inverse: Inverse::UciReload {
            package: package.clone(),
        },
        act: super::Act::Uci(Act::Announce(world.clone(), package)),
    }))
}

/// What changed, as `uci show` writes it; what is secret is only said to have changed.
pub(super) fn diff(keys: &[KeyChange]) -> String {
    let mut text = String::new();
    for change in keys {
        for (sign, held) in [('-', &change.before), ('+', &change.after)] {
            for line in lines(&change.key, held) {
                text += &format!("{sign} {line}\n");
            }
        }
    }
    text
}

fn lines(key: &Key, held: &Held) -> Vec<String> {
    let value = |value: &str| {
        if key.is_secret() {
            format!("{key}=(secret)")
        } else {
            format!("{key}='{value}'")
        }
    };
    match held {
        Held::Absent => Vec::new(),
        Held::Text(text) => vec![value(text)],
        Held::List(list) => list.iter().map(|item| value(item)).collect(),
        // Its lines may hold what is secret.
        Held::Section { kind, lines } => {
            let count = lines.lines().filter(|l| !l.trim().is_empty()).count();
            vec![format!("{key}={kind} ({} lines)", count.max(1))]
        }
    }
}
