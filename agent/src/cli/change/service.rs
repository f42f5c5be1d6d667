//! `change service`: the words of `systemctl` and `service`.

use aizen_protocol::package::manifest::{Operation, ServiceOperation};

use super::{UsageError, after, shown};

pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Operation, UsageError> {
    let wrap = match after(&mut words, "a command (start, stop, restart or reload)")? {
        "start" => ServiceOperation::Start,
        "stop" => ServiceOperation::Stop,
        "restart" => ServiceOperation::Restart,
        "reload" => ServiceOperation::Reload,
        other => {
            return Err(UsageError::Command {
                object: "service",
                word: shown(other),
                known: "start, stop, restart or reload",
            });
        }
    };
    let name = after(&mut words, "the service's name")?;
    match words.next() {
        None => Ok(Operation::Service(wrap(name.to_owned()))),
        Some(other) => Err(UsageError::Unknown(shown(other))),
    }
}
