//! Who is connected: one connection a device, the newest wins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aizen_protocol::id::DeviceId;
use tokio::sync::{Notify, oneshot};

/// Why a connection is told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Farewell {
    /// The device dialled again.
    #[error("a newer connection of this device replaced this one")]
    Replaced,
    /// The server ends.
    #[error("the orchestrator stops")]
    Stopping,
}

/// What a session holds while it is the device's connection.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Rings when there may be something to send.
    pub(crate) work: Arc<Notify>,
    /// Resolves when the session must end.
    pub(crate) farewell: oneshot::Receiver<Farewell>,
}

#[derive(Debug)]
struct Entry {
    connection: i64,
    work: Arc<Notify>,
    farewell: oneshot::Sender<Farewell>,
}

/// The registry of connections.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    online: Mutex<BTreeMap<DeviceId, Entry>>,
}

impl Presence {
    /// A device connected. Connection numbers count up; an older one than the present is told to go at once.
    pub(crate) fn arrive(&self, device: &DeviceId, connection: i64) -> Arrival {
        let work = Arc::new(Notify::new());
        let (sender, farewell) = oneshot::channel();
        let entry = Entry {
            connection,
            work: work.clone(),
            farewell: sender,
        };
        let mut online = self.lock();
        let loser = match online.remove(device) {
            Some(present) if present.connection > connection => {
                online.insert(device.clone(), present);
                Some(entry)
            }
            other => {
                online.insert(device.clone(), entry);
                other
            }
        };
        drop(online);
        if let Some(loser) = loser {
            // Its session may have ended by itself.
            loser.farewell.send(Farewell::Replaced).ok();
        }
        Arrival { work, farewell }
    }

    /// A session ended.
    pub(crate) fn leave(&self, device: &DeviceId, connection: i64) {
        let mut online = self.lock();
        if online
            .get(device)
            .is_some_and(|entry| entry.connection == connection)
        {
            online.remove(device);
        }
    }

    /// Rings the device's session, if it has one.
    pub(crate) fn wake(&self, device: &DeviceId) {
        if let Some(entry) = self.lock().get(device) {
            entry.work.notify_one();
        }
    }

    /// True while the device is connected.
    pub(crate) fn is_online(&self, device: &DeviceId) -> bool {
        self.lock().contains_key(device)
    }

    /// Ends every session.
    pub(crate) fn stop(&self) {
        let all = std::mem::take(&mut *self.lock());
        for (_, entry) in all {
            // Its session may have ended by itself.
            entry.farewell.send(Farewell::Stopping).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Entry>> {
        self.online.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_connection_wins_whatever_the_order_of_arrival() {
        let presence = Presence::default();
        let device = DeviceId::fresh();
        let mut first = presence.arrive(&device, 1);
        let mut third = presence.arrive(&device, 3);
        let mut second = presence.arrive(&device, 2);
        assert_eq!(first.farewell.try_recv(), Ok(Farewell::Replaced));
        assert_eq!(second.farewell.try_recv(), Ok(Farewell::Replaced));
        assert!(third.farewell.try_recv().is_err());
        presence.leave(&device, 1);
        assert!(presence.is_online(&device));
        presence.leave(&device, 3);
        assert!(!presence.is_online(&device));
    }
}
