//! The door to rtnetlink (rtnetlink(7)): one bounded question, one answer, the kernel's own words when it refuses.

use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket as _;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

/// Longest wait for an answer: the kernel answers while it is asked, so this only ends what never will.
const ANSWER: Duration = Duration::from_secs(10);
/// Most messages of one answer that are kept; a full Internet table has about a million routes.
const MESSAGES: usize = 1 << 20;

/// Why the kernel did not do or tell what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No socket, or the connection ended.
    #[error("rtnetlink can't be used: {0}")]
    Closed(#[source] io::Error),
    /// It refused.
    #[error("{}{}", io::Error::from_raw_os_error(*errno), said.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
    Refused {
        /// errno(3), positive.
        errno: i32,
        /// Its own words, if it sent some (`NLMSGERR_ATTR_MSG`).
        said: Option<String>,
    },
    /// No answer in time.
    #[error("the kernel did not answer within {} s", ANSWER.as_secs())]
    Silent,
    /// More than is kept.
    #[error("the kernel's answer has more than {MESSAGES} objects")]
    TooMany,
}

impl KernelError {
    /// errno(3) of a refusal.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Closed(_) | Self::Silent | Self::TooMany => None,
        }
    }
}

/// A connection to rtnetlink of the network namespace in which it was opened.
pub(crate) struct Kernel {
    handle: Handle,
    driver: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Kernel {
    /// Opens it; must be called inside a tokio runtime.
    pub(crate) fn open() -> Result<Self, KernelError> {
        let (mut connection, handle, _) =
            rtnetlink::new_connection().map_err(KernelError::Closed)?;
        connection
            .socket_mut()
            .socket_mut()
            .set_ext_ack(true)
            .map_err(KernelError::Closed)?;
        let driver = tokio::spawn(connection);
        Ok(Self { handle, driver })
    }

    /// All objects that a `GET` message names.
    pub(crate) async fn dump(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.exchange(message, NLM_F_DUMP).await
    }

    /// One `GET` that is no dump.
    pub(crate) async fn get(
        &self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        self.exchange(message, 0).await
    }

    /// Changes something; `flags` are those of netlink(7) beside `REQUEST` and `ACK`.
    pub(crate) async fn act(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), KernelError> {
        self.exchange(message, flags | NLM_F_ACK).await.map(drop)
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let closed = || KernelError::Closed(io::ErrorKind::ConnectionAborted.into());
        let mut answers = self.handle.clone().request(request).map_err(|_| closed())?;
        let read = async {
            let mut objects = Vec::new();
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::InnerMessage(object) if objects.len() < MESSAGES => {
                        objects.push(object);
                    }
                    NetlinkPayload::InnerMessage(_) => return Err(KernelError::TooMany),
                    NetlinkPayload::Error(error) => match error.code {
                        None => break,
                        Some(code) => {
                            return Err(KernelError::Refused {
                                errno: code.get().saturating_abs(),
                                said: own_words(&error.header),
                            });
                        }
                    },
                    _ => {}
                }
            }
            Ok(objects)
        };
        tokio::time::timeout(ANSWER, read)
            .await
            .map_err(|_| KernelError::Silent)?
    }
}

/// `NLMSGERR_ATTR_MSG` behind the echoed request (linux/netlink.h).
fn own_words(echoed: &[u8]) -> Option<String> {
    const ATTR_MSG: u16 = 1;
    let length = u32::from_ne_bytes(echoed.get(..4)?.try_into().ok()?) as usize;
    let mut rest = echoed.get(length.checked_next_multiple_of(4)?..)?;
    while rest.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        let value = rest.get(4..size)?;
        if kind == ATTR_MSG {
            let text = value.split(|b| *b == 0).next().unwrap_or(value);
            return Some(String::from_utf8_lossy(text).chars().take(200).collect());
        }
        rest = rest.get(size.next_multiple_of(4)..)?;
    }
    None
}

/// An attribute as it travels: its number and its bytes.
pub(crate) fn raw<A: Nla>(attribute: &A) -> (u16, Vec<u8>) {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    (attribute.kind() & 0x3fff, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_found_behind_the_echoed_request_and_garbage_is_survived() {
        let mut echoed = vec![0; 20];
        echoed[..4].copy_from_slice(&20u32.to_ne_bytes());
        let text = b"Nexthop has invalid gateway\0";
        echoed.extend_from_slice(&u16::try_from(text.len() + 4).unwrap().to_ne_bytes());
        echoed.extend_from_slice(&1u16.to_ne_bytes());
        echoed.extend_from_slice(text);
        assert_eq!(own_words(&echoed).unwrap(), "Nexthop has invalid gateway");
        for end in 0..echoed.len() {
            drop(own_words(&echoed[..end]));
        }
        assert_eq!(own_words(&[0xff; 40]), None);
        assert_eq!(own_words(&[0; 40]), None);
    }
}
