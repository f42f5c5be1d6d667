//! Exit codes (a contract, see the command line's documentation) and how an error is told.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use aizen_protocol::outcome::End;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;

use crate::control::ControlError;

/// Failed.
pub(super) const FAILED: u8 = 1;
/// Wrong usage, an unknown name or no permission (the convention of ping and fping).
pub(super) const USAGE: u8 = 2;
/// A diagnosis that could not tell (the convention of monitoring plugins).
pub(super) const UNTOLD: u8 = 3;
/// Refused by a check or by policy.
pub(super) const REFUSED: u8 = 4;
/// Rolled back.
pub(super) const ROLLED_BACK: u8 = 5;
/// Rolled back, but not everything.
pub(super) const ROLLBACK_INCOMPLETE: u8 = 6;
/// Try again later (`EX_TEMPFAIL`, sysexits.h).
pub(super) const TRY_LATER: u8 = 75;
/// Whoever read standard output went away: what a shell says of a program that SIGPIPE ended.
const LEFT: u8 = 141;

/// The code for the end of a package.
pub(super) fn of_end(end: End) -> ExitCode {
    match end {
        End::Confirmed | End::Diagnosed => ExitCode::SUCCESS,
        End::Refused => REFUSED.into(),
        End::RolledBack | End::Interrupted => ROLLED_BACK.into(),
        End::RollbackIncomplete => ROLLBACK_INCOMPLETE.into(),
    }
}

/// Tells an error on standard error, with its causes, and gives its code; with `--json` also as
/// `{"error": "…"}` on standard output. A reader that went away (`| head -1`) wants to hear nothing.
pub(super) fn complain(error: &anyhow::Error, json: bool) -> ExitCode {
    if reader_left(error) {
        return LEFT.into();
    }
    refuse(&told(error), json, FAILED);
    match error.downcast_ref::<ControlError>() {
        Some(ControlError::Unreachable { .. }) => TRY_LATER.into(),
        Some(
            ControlError::Impostor { .. }
            | ControlError::Broken(_)
            | ControlError::NotAMessage(_)
            | ControlError::Closed,
        )
        | None => FAILED.into(),
    }
}

/// Tells why nothing was done, and gives the code.
pub(super) fn refuse(why: &impl Display, as_json: bool, code: u8) -> ExitCode {
    // With standard error closed there is nobody left to tell.
    writeln!(io::stderr(), "aizen: {why}").ok();
    if as_json {
        tell_json(&why.to_string());
    }
    code.into()
}

/// The object that stands for a result where there is none.
pub(super) fn tell_json(why: &str) {
    writeln!(io::stdout(), "{}", json!({ "error": why })).ok();
}

/// An error and its causes; what an error already says of its cause is not said again.
pub(super) fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// True if this is the error of writing to a pipe that nobody reads any more.
fn reader_left(error: &anyhow::Error) -> bool {
    let broken = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken) && output_is_unread()
}

/// A socket can break as well: poll(2) tells POLLERR for a pipe without reader.
fn output_is_unread() -> bool {
    let out = io::stdout();
    let mut polled = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLERR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_told_already_is_not_told_twice() {
        let unreachable = ControlError::Unreachable {
            path: "/run/aizen/daemon.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        let text = told(&anyhow::Error::from(unreachable).context("no status"));
        assert!(
            text.starts_with("no status: can't reach /run/aizen"),
            "{text}"
        );
        assert_eq!(text.matches("entity not found").count(), 1, "{text}");
    }
}
