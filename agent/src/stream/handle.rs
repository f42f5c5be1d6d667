//! The spool as tasks share it: storage is slow, so every access runs on the blocking pool and no task waits for a
//! lock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::id::Sequence;
use aizen_protocol::record::Record;
use aizen_sanitizer::Sanitized;
use tokio::sync::Notify;

use super::attested::Attested;
use super::frame::{OpaqueFrame, Payload};
use super::spool::{Spool, SpoolError, SpoolStatus};

/// One of several hands on one spool.
#[derive(Clone)]
pub struct SpoolHandle {
    spool: Arc<Mutex<Option<Spool>>>,
    grown: Arc<Notify>,
    unsynced: Arc<Notify>,
}

impl fmt::Debug for SpoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpoolHandle")
    }
}

impl SpoolHandle {
    /// Shares a spool.
    #[must_use]
    pub fn new(spool: Spool) -> Self {
        Self {
            spool: Arc::new(Mutex::new(Some(spool))),
            grown: Arc::default(),
            unsynced: Arc::default(),
        }
    }

    /// Appends a record; [`SpoolHandle::keep`] brings it to storage within a second.
    ///
    /// # Errors
    /// As [`Spool::append`]: the record is dropped and counted.
    pub async fn append_record(&self, record: &Sanitized<Record>) -> Result<Sequence, SpoolError> {
        self.append(Payload::record(record)?).await
    }

    /// Appends a signed result; it is on storage when this returns.
    ///
    /// # Errors
    /// As [`Spool::append`]: the result is not lost, the executor keeps it and hands it in again.
    pub async fn append_signed(&self, attested: &Attested) -> Result<Sequence, SpoolError> {
        self.append(Payload::signed(attested)?).await
    }

    async fn append(&self, payload: Payload) -> Result<Sequence, SpoolError> {
        let appended = self.with(move |spool| spool.append(&payload)).await?;
        // Also after a failure: what was counted has to reach storage.
        self.unsynced.notify_one();
        if appended.is_ok() {
            self.grown.notify_one();
        }
        appended
    }

    /// The spool as it is.
    ///
    /// # Errors
    /// [`SpoolError::Ending`].
    pub async fn status(&self) -> Result<SpoolStatus, SpoolError> {
        self.with(|spool| spool.status()).await
    }

    /// Brings records to storage, at most a second after they were appended. Runs for as long as the program.
    pub async fn keep(&self) {
        loop {
            self.unsynced.notified().await;
            tokio::time::sleep(SYNC_AFTER).await;
            match self.with(Spool::sync).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "records are not on storage yet"),
                Err(_) => return,
            }
        }
    }

    /// Brings everything to storage and closes the spool; every later call is [`SpoolError::Ending`].
    ///
    /// # Errors
    /// [`SpoolError::Storage`].
    pub async fn close(&self) -> Result<(), SpoolError> {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            let taken = spool.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.map_or(Err(SpoolError::Ending), Spool::close)
        })
        .await
        .map_err(|_| SpoolError::Ending)?
    }

    /// Returns once something was appended since the last call.
    pub(super) async fn grown(&self) {
        self.grown.notified().await;
    }

    /// The next frames, at most `frames` and about `bytes` together.
    pub(super) async fn next_frames(
        &self,
        frames: usize,
        bytes: usize,
    ) -> Result<Vec<OpaqueFrame>, SpoolError> {
        self.with(move |spool| {
            let mut batch = Vec::new();
            let mut size = 0;
            while batch.len() < frames && size < bytes {
                let Some(frame) = spool.next_frame() else {
                    break;
                };
                size += frame.size();
                batch.push(frame);
            }
            batch
        })
        .await
    }

    /// A connection begins: hands everything out once more, and tells the spool as it is.
    pub(super) async fn rewind(&self) -> Result<SpoolStatus, SpoolError> {
        self.with(|spool| {
            spool.rewind();
            spool.status()
        })
        .await
    }

    pub(super) async fn welcome(&self, through: Sequence) -> Result<(), SpoolError> {
        self.unsynced.notify_one();
        self.with(move |spool| spool.welcome(through)).await?
    }

    pub(super) async fn acknowledge(&self, through: Sequence) -> Result<(), SpoolError> {
        self.unsynced.notify_one();
        self.with(move |spool| spool.acknowledge(through)).await?
    }

    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Spool) -> T + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
            spool.as_mut().map(act)
        })
        .await
        .ok()
        .flatten()
        .ok_or(SpoolError::Ending)
    }
}

const SYNC_AFTER: Duration = Duration::from_millis(800);
