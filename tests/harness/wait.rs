//! Waits for a condition with a deadline: no fixed sleeps, no endless loops.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `probe` every 50 ms until it gives a value.
///
/// # Errors
/// After `within`, naming `what` was waited for.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {within:?} for {what} in vain");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
