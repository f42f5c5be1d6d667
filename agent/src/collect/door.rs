//! Who answers what a process without capabilities can't see.

use std::io;
use std::path::{Path, PathBuf};

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest, Question};
use rustix::thread::{CapabilitySet, capabilities};

use super::CollectError;
use crate::control::{Connection, ControlError};
use crate::door;

/// The way to the read-only door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// This process looks itself: it is root with the capabilities.
    Direct,
    /// The executor behind this socket looks.
    Executor(PathBuf),
    /// Nobody does.
    #[default]
    Closed,
}

impl Door {
    /// The way that a command on the screen has: itself if it may, else the executor if it listens.
    #[must_use]
    pub fn find(executor: &Path) -> Self {
        let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        if capabilities(None).is_ok_and(|held| held.effective.contains(needed)) {
            Self::Direct
        } else if executor.exists() {
            Self::Executor(executor.to_owned())
        } else {
            Self::Closed
        }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// [`CollectError::Closed`] if nobody answers, [`CollectError::Unseen`] with the answering side's sentence.
    pub(crate) async fn ask(&self, question: &Question) -> Result<ExecutorAnswer, CollectError> {
        let answer = match self {
            Self::Direct => door::answer(question).await,
            Self::Executor(socket) => through(socket, question).await?,
            Self::Closed => return Err(CollectError::Closed),
        };
        match answer {
            ExecutorAnswer::Failed { message } => Err(CollectError::Unseen(message)),
            answer => Ok(answer),
        }
    }
}

async fn through(socket: &Path, question: &Question) -> Result<ExecutorAnswer, CollectError> {
    let asked = async {
        Connection::to_executor(socket)
            .await?
            .ask(&ExecutorRequest::See(question.clone()))
            .await
    };
    asked.await.map_err(|error| match error {
        ControlError::Unreachable { source, .. }
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            CollectError::Closed
        }
        error => CollectError::Unseen(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_without_anybody_behind_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("executor.sock");
        for door in [Door::Closed, Door::Executor(socket.clone())] {
            let error = door.ask(&Question::Filter).await.unwrap_err();
            assert!(matches!(error, CollectError::Closed), "{door:?}: {error}");
        }
        // A socket file that a dead process left behind.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let error = Door::Executor(socket)
            .ask(&Question::Filter)
            .await
            .unwrap_err();
        assert!(matches!(error, CollectError::Closed), "{error}");
    }
}
