//! Work that can hang inside the kernel runs on a thread of its own, so that a dead file server delays nobody.
//!
//! Not `spawn_blocking`: a runtime waits for those threads when it ends, and one in uninterruptible sleep never ends.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use tokio::sync::oneshot;

use super::CollectError;

/// Work that hasn't come back yet, by name or mount point: starting it again would add a stuck thread every round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hung(Arc<Mutex<BTreeSet<OsString>>>);

impl Hung {
    /// None if the same work is still under way.
    pub(crate) fn enter(&self, what: &OsStr) -> Option<Entered> {
        let mut hung = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hung.insert(what.to_owned()).then(|| Entered {
            hung: self.clone(),
            what: what.to_owned(),
        })
    }

    /// Runs a collector's work aside, unless that of an earlier round is still under way.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        collector: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CollectError> {
        let entered = self
            .enter(OsStr::new(collector))
            .ok_or(CollectError::StillHangs)?;
        let entered_work = move || {
            let _entered = entered;
            work()
        };
        Ok(run(&format!("aizen-{collector}"), entered_work).await?)
    }
}

/// One piece of work under way; ends when its thread does.
#[derive(Debug)]
pub(crate) struct Entered {
    hung: Hung,
    what: OsString,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.hung
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.what);
    }
}

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

    #[tokio::test]
    async fn work_that_still_hangs_is_not_started_again_until_it_ends() {
        let hung = Hung::default();
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let work = hung.run("log", move || held.recv().is_ok());
        assert!(
            tokio::time::timeout(Duration::from_millis(20), work)
                .await
                .is_err()
        );
        let again = hung.run("log", || ()).await;
        assert!(matches!(again, Err(CollectError::StillHangs)), "{again:?}");
        assert!(hung.run("cpu", || ()).await.is_ok());
        drop(release);
        while hung.run("log", || ()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
