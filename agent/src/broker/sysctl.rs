//! Kernel parameters: one value, written and read back.

use super::{BrokerError, Plan};
use crate::rollback::inverse::{Inverse, UndoError};
use crate::rollback::sysctl::{self, SysctlKey};

pub(super) fn plan(key: SysctlKey, value: String) -> Result<Option<Plan>, BrokerError> {
    let unread = |source| BrokerError::Parameter {
        key: key.clone(),
        doing: "read it, so that it can be put back",
        source,
    };
    let before = sysctl::read(&key).map_err(unread)?;
    let before = before.ok_or_else(|| BrokerError::NoParameter(key.clone()))?;
    if before == value {
        return Ok(None);
    }
    let act = super::Act::Sysctl {
        key: key.clone(),
        value: value.clone(),
    };
    Ok(Some(Plan {
        inverse: Inverse::Sysctl {
            key,
            before,
            after: value,
        },
        act,
    }))
}

pub(super) fn write(key: &SysctlKey, value: &str) -> Result<(), UndoError> {
    sysctl::write(key, value).map_err(|source| UndoError::Sysctl {
        key: key.clone(),
        source,
    })
}

/// The kernel may clamp a value or take it for another one.
pub(super) fn holds(key: &SysctlKey, asked: &str) -> Result<(), BrokerError> {
    let kept = sysctl::read(key).ok().flatten().unwrap_or_default();
    if kept == asked {
        return Ok(());
    }
    Err(BrokerError::ParameterKept {
        key: key.clone(),
        asked: asked.to_owned(),
        kept,
    })
}
