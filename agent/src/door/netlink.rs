//! One question to a netlink family other than rtnetlink, read to its end (netlink(7)).

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use zeroize::Zeroizing;

use super::attribute::{Attributes, push};
use crate::collect::NetlinkError;
use crate::collect::netlink::{parts, receive};

/// Asks for all objects and hands the payload of each message to `each`. True if the kernel says that they changed
/// meanwhile.
pub(super) async fn dump(
    protocol: isize,
    kind: u16,
    payload: &[u8],
    mut each: impl FnMut(&[u8]),
) -> Result<bool, NetlinkError> {
    let socket = asked(protocol, kind, NLM_F_REQUEST | NLM_F_DUMP, payload).await?;
    // A dump of WireGuard holds private keys.
    let mut datagram = Zeroizing::new(Vec::with_capacity(DATAGRAM));
    let mut torn = false;
    loop {
        receive(&socket, &mut datagram).await?;
        for part in parts(&datagram) {
            torn |= part.header.flags & NLM_F_DUMP_INTR != 0;
            match part.header.message_type {
                NLMSG_DONE | NLMSG_ERROR => {
                    return refused(part.payload)
                        .map_or(Ok(torn), |e| Err(NetlinkError::Refused(e)));
                }
                _ => each(part.payload),
            }
        }
        // A large packet filter is hundreds of datagrams that are all there already.
        tokio::task::yield_now().await;
    }
}

/// Asks for one object: the payload of its message.
pub(super) async fn ask_one(
    protocol: isize,
    kind: u16,
    payload: &[u8],
) -> Result<Vec<u8>, NetlinkError> {
    let socket = asked(protocol, kind, NLM_F_REQUEST, payload).await?;
    let mut datagram = Vec::with_capacity(DATAGRAM);
    receive(&socket, &mut datagram).await?;
    let Some(part) = parts(&datagram).next() else {
        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
    };
    if part.header.message_type == NLMSG_ERROR {
        let error = refused(part.payload).unwrap_or_else(|| io::ErrorKind::InvalidData.into());
        return Err(NetlinkError::Refused(error));
    }
    Ok(part.payload.to_vec())
}

/// The number of a generic netlink family (linux/genetlink.h); none if this kernel doesn't have it.
pub(super) async fn generic_family(name: &str) -> Result<Option<u16>, NetlinkError> {
    let mut question = generic(CTRL_CMD_GETFAMILY, 1);
    push(
        &mut question,
        CTRL_ATTR_FAMILY_NAME,
        format!("{name}\0").as_bytes(),
    );
    match ask_one(NETLINK_GENERIC, GENL_ID_CTRL, &question).await {
        Ok(answer) => {
            Ok(Attributes(answer.get(GENERIC..).unwrap_or_default()).ne16(CTRL_ATTR_FAMILY_ID))
        }
        Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The header of a generic netlink message.
pub(super) fn generic(command: u8, version: u8) -> Vec<u8> {
    vec![command, version, 0, 0]
}

async fn asked(protocol: isize, kind: u16, flags: u16, payload: &[u8]) -> io::Result<TokioSocket> {
    let mut socket = <TokioSocket as AsyncSocket>::new(protocol)?;
    socket.socket_mut().bind_auto()?;
    let length = u32::try_from(HEADER + payload.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(payload);
    socket.send_to(&message, &SocketAddr::new(0, 0)).await?;
    Ok(socket)
}

/// The error that `NLMSG_ERROR` or `NLMSG_DONE` carries, if it is one.
fn refused(payload: &[u8]) -> Option<io::Error> {
    let code = payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    (code < 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

pub(super) const NETLINK_GENERIC: isize = 16;
pub(super) const NETLINK_NETFILTER: isize = 12;
/// `struct genlmsghdr`.
pub(super) const GENERIC: usize = 4;
const HEADER: usize = 16;
/// Above the 32 KiB that the kernel fills at most (netlink_dump).
const DATAGRAM: usize = 64 << 10;
/// `NLM_F_DUMP_INTR` (linux/netlink.h).
const NLM_F_DUMP_INTR: u16 = 0x10;
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_an_error_only_if_it_says_so() {
        assert!(refused(&0_i32.to_ne_bytes()).is_none());
        assert!(refused(b"").is_none());
        let error = refused(&(-1_i32).to_ne_bytes()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(
            refused(&i32::MIN.to_ne_bytes()).unwrap().raw_os_error(),
            Some(i32::MAX)
        );
    }

    #[tokio::test]
    async fn a_family_that_no_kernel_has_is_none_and_the_controller_is_there() {
        assert_eq!(generic_family("aizen-none").await.unwrap(), None);
        assert_eq!(generic_family("nlctrl").await.unwrap(), Some(GENL_ID_CTRL));
    }
}
