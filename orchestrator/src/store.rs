//! The embedded store: one SQLite file, one connection, every access a transaction.
//!
//! Stages hand in closures over a transaction; what they decide and what they write commit together. `synchronous`
//! is FULL: an acknowledged record survives a power cut.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub(crate) mod approvals;
pub(crate) mod cases;
pub(crate) mod column;
pub(crate) mod deliveries;
pub(crate) mod devices;
mod migration;
pub(crate) mod outcomes;
pub(crate) mod proposals;
pub(crate) mod records;

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's own word.
    #[error("the store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file was written by a later program.
    #[error(
        "the store has schema {found}, this program knows up to {known}: use the newer program"
    )]
    Later {
        /// The file's schema.
        found: i64,
        /// The newest schema here.
        known: i64,
    },
    /// The worker that held the transaction ended without an answer.
    #[error("the store's worker stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}

/// The store; clones share one connection.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    connection: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens or makes the file and brings its schema up to date.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        migration::bring_up_to_date(&mut connection)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// Runs `work` in one transaction on a blocking thread; commits if it succeeds.
    pub(crate) async fn transact<T, E, W>(&self, work: W) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        W: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.transact_here(work))
            .await
            .map_err(StoreError::Stopped)?
    }

    /// Runs `work` in one transaction on this thread.
    pub(crate) fn transact_here<T, E: From<StoreError>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // A panic inside a transaction rolled it back; the connection itself is sound.
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::Sqlite)?;
        let answer = work(&transaction)?;
        transaction.commit().map_err(StoreError::Sqlite)?;
        Ok(answer)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store of its own, in memory.
    pub(crate) fn empty() -> Store {
        Store::open(Path::new(":memory:")).unwrap()
    }

    #[test]
    fn a_failed_piece_of_work_leaves_nothing() {
        let store = empty();
        let insert = "INSERT INTO tokens (secret, created_at, expires_at) VALUES ('a', 0, 0)";
        let failed: Result<(), StoreError> = store.transact_here(|tx| {
            tx.execute(insert, [])?;
            tx.execute(insert, [])?;
            Ok(())
        });
        assert!(failed.is_err());
        let left: i64 = store
            .transact_here::<_, StoreError>(|tx| {
                Ok(tx.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))?)
            })
            .unwrap();
        assert_eq!(left, 0);
    }
}
