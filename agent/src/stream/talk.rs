//! What the daemon and the uplink say to each other, as far as it outlives a connection.

use std::collections::VecDeque;

use aizen_protocol::envelope::Envelope;
use aizen_protocol::frame::DeviceFrame;
use aizen_protocol::id::Digest;
use aizen_protocol::statement::Confirmation;
use aizen_protocol::{limit, strict};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::link::{EVENT_WITHIN, LinkError};
use super::uplink::{About, Command, Event};

/// Everything that outlives a connection and is not storage.
pub(super) struct Talk {
    pub(super) about: watch::Receiver<About>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    /// The confirmation that is asked for on every connection until it comes or is forgotten.
    pub(super) confirm: Option<Confirmation>,
    receipts: VecDeque<Receipt>,
}

/// A package's arrival, told again on each connection until a pong proves that it was read.
struct Receipt {
    package: Digest,
    told: Told,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    No,
    Sent,
    BeforePing,
}

/// What a command asks of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    Connection,
    FreshConnection,
}

impl Talk {
    pub(super) fn new(
        about: watch::Receiver<About>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            about,
            commands,
            events,
            confirm: None,
            receipts: VecDeque::new(),
        }
    }

    /// Takes a command to heart; what is to be done about it at once.
    pub(super) fn note(&mut self, command: Command) -> Wanted {
        match command {
            Command::Kick => Wanted::Connection,
            Command::Received(package) => {
                if !self.receipts.iter().any(|r| r.package == package) {
                    if self.receipts.len() >= MAX_RECEIPTS {
                        self.receipts.pop_front();
                    }
                    self.receipts.push_back(Receipt {
                        package,
                        told: Told::No,
                    });
                }
                Wanted::Nothing
            }
            Command::ConfirmWanted(confirmation) => {
                self.confirm = Some(confirmation);
                Wanted::FreshConnection
            }
            Command::ForgetConfirm(change) => {
                self.confirm.take_if(|c| c.change == change);
                Wanted::Nothing
            }
        }
    }

    /// Tells the daemon; an error if it listens no more or too late.
    pub(super) async fn tell(&self, event: Event) -> Result<(), LinkError> {
        match timeout(EVENT_WITHIN, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LinkError::Ending),
            // What was not taken is delivered again over the next connection.
            Err(_) => Err(LinkError::Deaf(EVENT_WITHIN)),
        }
    }

    /// A connection begins: everything is told on it.
    pub(super) fn tell_again(&mut self) {
        for receipt in &mut self.receipts {
            receipt.told = Told::No;
        }
    }

    /// The arrivals that are not told on this connection.
    pub(super) fn untold(&mut self) -> Vec<DeviceFrame> {
        let untold = self.receipts.iter_mut().filter(|r| r.told == Told::No);
        untold
            .map(|receipt| {
                receipt.told = Told::Sent;
                DeviceFrame::Received {
                    package: receipt.package,
                }
            })
            .collect()
    }

    /// A ping goes out behind everything that was told.
    pub(super) fn pinged(&mut self) {
        for receipt in &mut self.receipts {
            if receipt.told == Told::Sent {
                receipt.told = Told::BeforePing;
            }
        }
    }

    /// The pong came: what was told before the ping was read.
    pub(super) fn ponged(&mut self) {
        self.receipts.retain(|r| r.told != Told::BeforePing);
    }

    /// The signed confirmation came: it is not asked for again.
    pub(super) fn settle(&mut self, statement: &Envelope) {
        let confirmation = statement
            .unverified_payload()
            .ok()
            .and_then(|p| strict::from_slice::<Confirmation>(&p, limit::ENVELOPE).ok());
        self.confirm
            .take_if(|wanted| confirmation.as_ref() == Some(wanted));
    }
}

const MAX_RECEIPTS: usize = 64;
