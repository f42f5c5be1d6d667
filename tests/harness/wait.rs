//! Waits for a condition with a deadline: no fixed sleeps, no endless loops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Set by whoever watches for Ctrl-C: every wait ends, and what was made is cleaned up on the way out.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// True once somebody asked to stop.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Asks `probe` every 50 ms until it gives a value.
///
/// # Errors
/// After `within`, naming `what` was waited for; at once when interrupted.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} for {what} in vain");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
