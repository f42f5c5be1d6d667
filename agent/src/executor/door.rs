//! One connection: requests to the owner, answers back, nothing else.

use std::time::Duration;

use aizen_protocol::control::{ExecutorAnswer, ExecutorRequest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::watchers::QUEUE;
use crate::control::guests::Guest;
use crate::control::{Connection, ControlError, Peer};

/// A peer that asks nothing for so long is disconnected: an idle executor ends.
const SILENT: Duration = Duration::from_secs(30);
/// A peer that does not read an answer for so long is disconnected.
const DEAF: Duration = Duration::from_secs(10);

/// A request and the way back.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) peer: Peer,
    pub(crate) request: ExecutorRequest,
    pub(crate) answers: mpsc::Sender<ExecutorAnswer>,
}

/// Carries one connection until it ends, and keeps its place for so long.
pub(crate) async fn converse(stream: UnixStream, guest: Guest, asks: mpsc::Sender<Ask>) {
    let mut connection = match Connection::accepted(stream) {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(%error, "a peer without credentials was turned away");
            return;
        }
    };
    if let Err(error) = requests(&mut connection, &asks).await {
        tracing::info!(%error, peer = ?connection.peer(), "a connection ended");
    }
    drop(guest);
}

async fn requests(
    connection: &mut Connection,
    asks: &mpsc::Sender<Ask>,
) -> Result<(), ControlError> {
    loop {
        let request = match timeout(SILENT, connection.recv::<ExecutorRequest>()).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) => {
                let message = error.to_string();
                send(connection, &ExecutorAnswer::Failed { message }).await?;
                return Err(error);
            }
        };
        let (answers, mut answered) = mpsc::channel(QUEUE);
        let peer = connection.peer().clone();
        let ask = Ask {
            peer,
            request,
            answers,
        };
        if asks.send(ask).await.is_err() {
            return Ok(());
        }
        while let Some(answer) = answered.recv().await {
            send(connection, &answer).await?;
        }
    }
}

async fn send(connection: &mut Connection, answer: &ExecutorAnswer) -> Result<(), ControlError> {
    timeout(DEAF, connection.send(answer))
        .await
        .map_err(|_| ControlError::Closed)?
}
