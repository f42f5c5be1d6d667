//! Work that can hang inside the kernel runs on a thread of its own, so that a dead file server delays nobody.
//!
//! Not `spawn_blocking`: a runtime waits for those threads when it ends, and one in uninterruptible sleep never ends.
//! A thread that is done waits a while for more work of the same thread, because starting one costs more than most work
//! does. They are nobody else's: a thread is in the network namespace in which it was started.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

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

/// Runs `work` aside. Dropping the future leaves the thread to end by itself. Work that changes its thread (its
/// namespaces, its credentials) belongs to [`run_alone`].
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (work, result) = named(name, work)?;
    WAITING.with(|waiting| hand_over(waiting, work))?;
    result.await.map_err(panicked)
}

/// The same on a thread that nobody else uses, before or after.
pub(crate) async fn run_alone<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (work, result) = named(name, work)?;
    thread::Builder::new().spawn(work)?;
    result.await.map_err(panicked)
}

fn named<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<(Work, oneshot::Receiver<T>)> {
    let (done, result) = oneshot::channel();
    let name = CString::new(name)?;
    let work = move || {
        // For whoever looks which thread hangs; the kernel keeps 15 bytes.
        rustix::thread::set_name(&name).ok();
        // Nobody listens after a deadline; then the result is late and of no use.
        done.send(work()).ok();
    };
    Ok((Box::new(work), result))
}

fn panicked(_: oneshot::error::RecvError) -> io::Error {
    io::Error::other("the thread panicked")
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for work, the last that was done first. They end with the thread whose they are.
#[derive(Debug, Default)]
struct Waiting(Mutex<Vec<(ThreadId, SyncSender<Work>)>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, Vec<(ThreadId, SyncSender<Work>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False for who was given work meanwhile.
    fn leave(&self) -> bool {
        let own = thread::current().id();
        let mut all = self.all();
        let place = all.iter().position(|(id, _)| *id == own);
        place.map(|place| all.swap_remove(place)).is_some()
    }
}

thread_local! {
    static WAITING: Arc<Waiting> = Arc::default();
}

fn hand_over(waiting: &Arc<Waiting>, work: Work) -> io::Result<()> {
    let next = waiting.all().pop();
    let work = match next {
        Some((_, thread)) => match thread.send(work) {
            Ok(()) => return Ok(()),
            Err(error) => error.0,
        },
        None => work,
    };
    let home = Arc::downgrade(waiting);
    thread::Builder::new().spawn(move || live(work, &home))?;
    Ok(())
}

fn live(first: Work, home: &Weak<Waiting>) {
    let mut work = Some(first);
    while let Some(now) = work.take() {
        now();
        work = next(home);
    }
}

/// What comes next; none if nothing does for a while, enough others wait, or nobody is left to ask.
fn next(home: &Weak<Waiting>) -> Option<Work> {
    let (sender, receiver) = sync_channel(1);
    {
        let waiting = home.upgrade()?;
        let mut all = waiting.all();
        if all.len() >= MOST_WAITING {
            return None;
        }
        all.push((thread::current().id(), sender));
    }
    match receiver.recv_timeout(PATIENCE) {
        Ok(work) => Some(work),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) if home.upgrade()?.leave() => None,
        Err(RecvTimeoutError::Timeout) => receiver.recv().ok(),
    }
}

/// Longer than rounds are apart.
const PATIENCE: Duration = Duration::from_secs(20);
/// A round hands out more at once, but most work is done sooner than all of it is handed out.
const MOST_WAITING: usize = 6;

#[cfg(test)]
mod tests {
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

    #[tokio::test]
    async fn work_that_follows_finds_the_thread_of_the_work_before() {
        let thread = || run("first", || thread::current().id());
        let first = thread().await.unwrap();
        // It tells its result before it waits.
        while WAITING.with(|waiting| waiting.all().is_empty()) {
            tokio::task::yield_now().await;
        }
        assert_eq!(thread().await.unwrap(), first);
    }

    #[tokio::test]
    async fn work_at_once_has_threads_of_its_own_and_not_all_of_them_wait_for_more() {
        let (together, others) = (Arc::new(std::sync::Barrier::new(20)), 0..20);
        let work = others.map(|_| {
            let together = Arc::clone(&together);
            run("together", move || together.wait().is_leader())
        });
        let leaders = futures_util::future::join_all(work).await;
        assert_eq!(leaders.iter().filter(|l| *l.as_ref().unwrap()).count(), 1);
        assert!(WAITING.with(|waiting| waiting.all().len()) <= MOST_WAITING);
    }

    #[test]
    fn threads_that_wait_end_with_whom_they_wait_for() {
        let (told, alive) = sync_channel::<()>(0);
        let home = thread::spawn(move || {
            let waiting: Arc<Waiting> = Arc::default();
            let first: Work = Box::new(|| {});
            let (home, ended) = (Arc::downgrade(&waiting), told);
            let waits = thread::spawn(move || {
                live(first, &home);
                drop(ended);
            });
            while waiting.all().is_empty() {
                thread::yield_now();
            }
            drop(waiting);
            waits.join()
        });
        assert!(home.join().unwrap().is_ok());
        assert!(alive.recv().is_err());
    }
}
