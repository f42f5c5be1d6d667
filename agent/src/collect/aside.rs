//! Work that can hang inside the kernel runs on a thread of its own, so that a dead file server delays nobody.
//!
//! Not `spawn_blocking`: a runtime waits for those threads when it ends, and one in uninterruptible sleep never ends.

use std::{io, thread};

use tokio::sync::oneshot;

/// Runs `work` aside. Dropping the future leaves the thread to end by itself.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody listens after a deadline; then the result is late and of no use.
            done.send(work()).ok();
        })?;
    result
        .await
        .map_err(|_| io::Error::other("the thread panicked"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_result_comes_back_and_a_panic_is_an_error() {
        assert_eq!(run("seven", || 7).await.unwrap(), 7);
        assert!(run("broken", || panic!("on purpose")).await.is_err());
    }

    #[tokio::test]
    async fn a_thread_that_hangs_does_not_hold_the_runtime() {
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let hung = run("hung", move || held.recv().is_ok());
        assert!(
            tokio::time::timeout(Duration::from_millis(20), hung)
                .await
                .is_err()
        );
        drop(release);
    }
}
