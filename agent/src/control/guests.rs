//! How many connections each user has open: one user must not take every place at a socket that all may connect to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UnixStream;

/// Connections by user. Root's are not counted.
#[derive(Clone, Debug)]
pub struct Guests {
    each: usize,
    open: Arc<Mutex<BTreeMap<u32, usize>>>,
}

/// One place that is taken; free again when dropped.
#[derive(Debug)]
pub struct Guest {
    uid: u32,
    guests: Guests,
}

impl Guests {
    /// At most `each` connections of one user.
    #[must_use]
    pub fn new(each: usize) -> Self {
        Self {
            each,
            open: Arc::default(),
        }
    }

    /// Takes a place for whoever connected; none if this user has all of its own already.
    #[must_use]
    pub fn enter(&self, stream: &UnixStream) -> Option<Guest> {
        let uid = stream.peer_cred().ok()?.uid();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = open.entry(uid).or_default();
        if uid != 0 && *taken >= self.each {
            return None;
        }
        *taken += 1;
        Some(Guest {
            uid,
            guests: self.clone(),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut open = self
            .guests
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = open.get_mut(&self.uid) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_is_left_is_free_again() {
        let guests = Guests::new(2);
        let (stream, _other) = UnixStream::pair().unwrap();
        let places: Vec<_> = (0..2).map(|_| guests.enter(&stream).unwrap()).collect();
        let third = guests.enter(&stream);
        assert_eq!(third.is_some(), nix::unistd::getuid().is_root());
        drop((places, third));
        assert!(guests.open.lock().unwrap().is_empty());
        assert!(guests.enter(&stream).is_some());
    }
}
