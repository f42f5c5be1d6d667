//! Who is at the other end of a local socket, and what that person or program may ask.

use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixStream;

/// The group whose members may change things without being root.
pub const OPERATORS: &str = "aizen-operators";

/// The process at the other end, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Process, if the kernel says.
    pub pid: Option<i32>,
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever can connect.
    Anybody,
    /// The daemon, root or an operator.
    Daemon,
    /// Root or an operator.
    Operator,
}

impl Peer {
    /// Asks the kernel (`SO_PEERCRED`).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            pid: credentials.pid(),
        })
    }

    /// True if this peer may ask for something that needs `access`; `daemon` is the daemon's own user.
    #[must_use]
    pub fn may(&self, access: Access, daemon: Option<u32>) -> bool {
        match access {
            Access::Anybody => true,
            Access::Operator => self.uid == 0 || self.is_operator(),
            Access::Daemon => Some(self.uid) == daemon || self.may(Access::Operator, daemon),
        }
    }

    fn is_operator(&self) -> bool {
        let Ok(Some(operators)) = Group::from_name(OPERATORS) else {
            return false;
        };
        if operators.gid.as_raw() == self.gid {
            return true;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else {
            return false;
        };
        let Ok(name) = std::ffi::CString::new(user.name) else {
            return false;
        };
        getgrouplist(&name, Gid::from_raw(self.gid))
            .is_ok_and(|groups| groups.contains(&operators.gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_may_all_the_daemon_its_part_and_a_stranger_nothing_that_changes() {
        let root = Peer {
            uid: 0,
            gid: 0,
            pid: None,
        };
        let daemon = Peer {
            uid: 990,
            gid: 990,
            pid: None,
        };
        let stranger = Peer {
            uid: 65_000,
            gid: 65_000,
            pid: None,
        };
        assert!(root.may(Access::Operator, Some(990)));
        assert!(daemon.may(Access::Daemon, Some(990)) && !daemon.may(Access::Operator, Some(990)));
        assert!(
            stranger.may(Access::Anybody, Some(990)) && !stranger.may(Access::Daemon, Some(990))
        );
    }
}
