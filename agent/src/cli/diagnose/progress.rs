//! A word for a person who waits.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// Runs the work and, on a terminal, says each second on standard error that it goes on.
pub(super) async fn shown<T>(work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let mut work = std::pin::pin!(work);
    let mut seconds = 0_u32;
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                seconds += 1;
                // A terminal that takes nothing more is no reason to stop the work.
                write!(io::stderr(), "\r{seconds} s: reading and probing, 10 s at most").ok();
            }
        }
    };
    if seconds > 0 {
        write!(io::stderr(), "\r{ERASE}").ok();
    }
    result
}

/// Erases to the end of the line (ECMA-48 EL).
const ERASE: &str = "\x1b[K";
