//! Services in the one form in which they are compared.

use aizen_protocol::package::manifest::{Operation, ServiceOperation};

use super::{Exact, GrantError};
use crate::rollback::service::Deed;

pub(super) fn exact(operation: &ServiceOperation) -> Result<Exact, GrantError> {
    let (deed, name) = match operation {
        ServiceOperation::Start(name) => (Deed::Start, name),
        ServiceOperation::Stop(name) => (Deed::Stop, name),
        ServiceOperation::Restart(name) => (Deed::Restart, name),
        ServiceOperation::Reload(name) => (Deed::Reload, name),
    };
    // One name for one service, whoever starts it.
    let name = name.strip_suffix(".service").unwrap_or(name);
    let plain = (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'))
        && !name.contains("..")
        && ![
            ".socket", ".target", ".timer", ".mount", ".path", ".slice", ".scope", ".device",
        ]
        .iter()
        .any(|suffix| name.ends_with(suffix));
    if !plain {
        return Err(GrantError::NotAService(name.chars().take(80).collect()));
    }
    if name == "aizen" || name.starts_with("aizen-") {
        return Err(GrantError::OwnService(name.to_owned()));
    }
    Ok(Exact::Service {
        deed,
        name: name.to_owned(),
    })
}

pub(super) fn operation(deed: Deed, name: &str) -> Operation {
    let name = name.to_owned();
    Operation::Service(match deed {
        Deed::Start => ServiceOperation::Start(name),
        Deed::Stop => ServiceOperation::Stop(name),
        Deed::Restart => ServiceOperation::Restart(name),
        Deed::Reload => ServiceOperation::Reload(name),
    })
}
