//! Exit codes (a contract, see the command line's documentation) and how an error is told.

use std::io::{self, Write as _};
use std::process::ExitCode;

use aizen_protocol::outcome::End;

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

/// The code for the end of a package.
pub(super) fn of_end(end: End) -> ExitCode {
    match end {
        End::Confirmed | End::Diagnosed => ExitCode::SUCCESS,
        End::Refused => REFUSED.into(),
        End::RolledBack | End::Interrupted => ROLLED_BACK.into(),
        End::RollbackIncomplete => ROLLBACK_INCOMPLETE.into(),
    }
}

/// Tells an error on standard error, with its causes, and gives its code.
pub(super) fn complain(error: &anyhow::Error) -> ExitCode {
    // With standard error closed there is nobody left to tell.
    writeln!(io::stderr(), "aizen: {error:#}").ok();
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
