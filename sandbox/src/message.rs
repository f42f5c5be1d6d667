//! What parent and child tell each other, over sequenced-packet sockets.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::level::Layer;
use crate::profile::{Limits, Network, Powers, ReadBind};

/// Everything the child needs to know, written once by the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) parent: u32,
    pub(crate) interpreter: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) reads: Vec<ReadBind>,
    pub(crate) change_tool: Option<PathBuf>,
    pub(crate) network: Network,
    pub(crate) powers: Powers,
    pub(crate) limits: Limits,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The control group of version 2, which init is born into where the kernel can do that.
    pub(crate) unified: Option<PathBuf>,
    /// The groups of version 1, which init is moved into.
    pub(crate) legacy: Vec<PathBuf>,
    /// True if a memory controller counts, so that no address-space limit has to stand in for it.
    pub(crate) memory_grouped: bool,
    /// What the parent put up itself.
    pub(crate) layers: Vec<Layer>,
    /// Compiled seccomp programs in the order of installation; empty if there is none for this architecture.
    pub(crate) filters: Vec<Vec<u64>>,
}

/// From the child's side to the parent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The sandbox's init exists; its pidfd comes along where the kernel has pidfds.
    Init,
    /// All walls stand; the script's process waits for the word.
    Ready(Vec<Layer>),
    /// A step failed and nothing of the script ran.
    Failed {
        step: String,
        subject: String,
        errno: i32,
    },
    /// The script's own process ended, and so did all that it left behind.
    Ended { end: RawEnd, leftovers: u32 },
}

/// How the script's own process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawEnd {
    Exited(i32),
    Signalled(i32),
}

/// Parent to the script's process: be executed.
pub(crate) const GO: u8 = b'G';
/// Parent to init: SIGTERM to the script's process group.
pub(crate) const TERMINATE: u8 = b'T';
/// Parent to init: SIGKILL to all that is left.
pub(crate) const KILL: u8 = b'K';

/// A message is small: the longest carries the vector of layers.
const LONGEST: usize = 16 << 10;
const MOST_DESCRIPTORS: usize = 4;

pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    send_bytes(socket, &bytes, descriptors)
}

pub(crate) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// None at the end of the other side.
pub(crate) fn receive_bytes(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    let descriptors = control
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(Some((bytes, descriptors)))
}

pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let Some((bytes, descriptors)) = receive_bytes(socket)? else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
}

/// A memory file that nobody can change any more, its offset at the start.
pub(crate) fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Without execute permission from Linux 6.3; older kernels don't know the flag.
    let fd = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file.into())
}

pub(crate) fn read_order(memory: OwnedFd) -> io::Result<Order> {
    let mut text = Vec::new();
    File::from(memory).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// A pair of connected sockets that keep the borders of messages.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn descriptors_travel_with_the_message_they_were_sent_with() {
        let (ours, theirs) = pair().unwrap();
        let memory = sealed("test", b"as signed").unwrap();
        send(ours.as_fd(), &Message::Init, &[memory.as_fd()]).unwrap();
        drop(ours);
        let (message, mut descriptors) = receive(theirs.as_fd()).unwrap().unwrap();
        assert_eq!(message, Message::Init);
        let mut text = String::new();
        let mut file = File::from(descriptors.remove(0));
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "as signed");
        assert!(receive(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_sealed_file_takes_no_further_byte() {
        let mut file = File::from(sealed("test", b"as signed").unwrap());
        assert!(file.write_all(b"not").is_err());
        assert!(file.set_len(0).is_err());
    }
}
