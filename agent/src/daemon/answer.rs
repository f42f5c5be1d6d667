//! Answers people on the daemon's socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aizen_protocol::control::{Bindings, DaemonAnswer, DaemonRequest};
use aizen_protocol::limit;
use aizen_protocol::package::BindingKind;
use aizen_protocol::record::Trigger;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::state::State;
use crate::control::{Access, Connection, ControlError, Guests};
use crate::sanitize;

/// People at one time.
const AT_ONCE: usize = 16;
/// People of one user that is not root.
const AT_ONCE_EACH: usize = 4;
/// A connection that says nothing for so long is closed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves for as long as the daemon lives.
pub(super) async fn serve(
    listener: UnixListener,
    state: State,
    sanitizer: Arc<Mutex<sanitize::Stage>>,
    asked: mpsc::Sender<Trigger>,
) {
    let mut open = JoinSet::new();
    let guests = Guests::new(AT_ONCE_EACH);
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => {
                    let Some(guest) = guests.enter(&stream) else { continue };
                    let (state, sanitizer, asked) = (state.clone(), Arc::clone(&sanitizer), asked.clone());
                    open.spawn(async move {
                        if let Err(error) = converse(stream, &state, &sanitizer, &asked).await {
                            tracing::debug!(%error, "a local connection ended");
                        }
                        drop(guest);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a local connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = open.join_next() => drop(ended),
        }
    }
}

async fn converse(
    stream: UnixStream,
    state: &State,
    sanitizer: &Mutex<sanitize::Stage>,
    asked: &mpsc::Sender<Trigger>,
) -> Result<(), ControlError> {
    let mut connection = Connection::accepted(stream)?;
    while let Ok(received) = timeout(PATIENCE, connection.recv::<DaemonRequest>()).await {
        let request = match received {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(error) => {
                let message = error.to_string();
                connection.send(&DaemonAnswer::Failed { message }).await?;
                return Err(error);
            }
        };
        let answer = if connection.peer().may(needed(&request), None) {
            answer(request, state, sanitizer, asked).await
        } else {
            DaemonAnswer::Failed {
                message: "only root and members of the group aizen-operators may ask for that"
                    .to_owned(),
            }
        };
        connection.send(&answer).await?;
    }
    Ok(())
}

fn needed(request: &DaemonRequest) -> Access {
    match request {
        DaemonRequest::Status => Access::Anybody,
        DaemonRequest::Connect
        | DaemonRequest::Standing
        | DaemonRequest::Collect
        | DaemonRequest::Metrics
        | DaemonRequest::Remembered
        | DaemonRequest::Reveal { .. } => Access::Operator,
    }
}

async fn answer(
    request: DaemonRequest,
    state: &State,
    sanitizer: &Mutex<sanitize::Stage>,
    asked: &mpsc::Sender<Trigger>,
) -> DaemonAnswer {
    match request {
        DaemonRequest::Status => DaemonAnswer::Status(state.status().await),
        DaemonRequest::Connect if state.kick() => DaemonAnswer::Done,
        DaemonRequest::Connect => DaemonAnswer::Failed {
            message: "this device is not enrolled: see 'aizen enroll --help'".to_owned(),
        },
        DaemonRequest::Standing => {
            state.standing().notify_one();
            DaemonAnswer::Done
        }
        DaemonRequest::Collect => {
            // A full queue holds a round already.
            asked.try_send(Trigger::Asked).ok();
            DaemonAnswer::Done
        }
        DaemonRequest::Metrics => metrics(state),
        DaemonRequest::Remembered => {
            let (history, rounds) = state.remembered();
            DaemonAnswer::Remembered { history, rounds }
        }
        DaemonRequest::Reveal { pseudonyms } => DaemonAnswer::Values {
            values: reveal(&pseudonyms, sanitizer),
        },
    }
}

fn metrics(state: &State) -> DaemonAnswer {
    let text = crate::metrics::text(&state.newest());
    // JSON escapes quotes, of which each label has two.
    if text.len() > limit::FRAME / 2 {
        let message = "there are more metrics than one answer holds: set 'listen' in [metrics] of the configuration and scrape that";
        return DaemonAnswer::Failed {
            message: message.to_owned(),
        };
    }
    DaemonAnswer::Metrics { text }
}

fn reveal(pseudonyms: &[String], sanitizer: &Mutex<sanitize::Stage>) -> Bindings {
    const KINDS: [BindingKind; 4] = [
        BindingKind::Address,
        BindingKind::Prefix,
        BindingKind::Mac,
        BindingKind::Name,
    ];
    let sanitizer = sanitizer.lock().unwrap_or_else(PoisonError::into_inner);
    let value = |pseudonym: &String| {
        KINDS
            .iter()
            .find_map(|kind| sanitizer.value(*kind, pseudonym))
    };
    pseudonyms
        .iter()
        .filter_map(|p| Some((p.clone(), value(p)?)))
        .collect()
}
