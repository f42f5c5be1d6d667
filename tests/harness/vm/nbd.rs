//! The server's side of NBD as far as qemu speaks it with one disk: fixed newstyle, one export, no extensions.
//!
//! Source: the NBD project's `doc/proto.md`. All numbers are big-endian.

use std::io::{self, Read, Write};

/// `NBDMAGIC`.
const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
const OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
/// NBD_FLAG_FIXED_NEWSTYLE and NBD_FLAG_NO_ZEROES, in both directions.
const HANDSHAKE: u16 = 0b11;
/// NBD_FLAG_HAS_FLAGS and NBD_FLAG_SEND_FLUSH: a disk with a cache that must be asked to write.
const DISK: u16 = 0b101;
const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
/// Longest option and longest request, bytes.
const LONGEST: u32 = 64 << 20;

/// What the guest wants of the disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Bytes from an offset.
    Read {
        /// From here.
        offset: u64,
        /// As many.
        length: u32,
    },
    /// Bytes to an offset; the disk may keep them in its cache.
    Write {
        /// To here.
        offset: u64,
        /// These.
        bytes: Vec<u8>,
    },
    /// Everything written before must survive a power cut once this is answered.
    Flush,
    /// The guest is done.
    Disconnect,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn u32_of(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_of(from: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

fn bytes_of(from: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length > LONGEST {
        return Err(broken("a message beyond its bound"));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Agrees on the one export of `size` bytes.
///
/// # Errors
/// If the peer speaks another dialect or leaves.
pub fn greet(peer: &mut (impl Read + Write), size: u64) -> io::Result<()> {
    let mut hello = Vec::new();
    hello.extend(MAGIC.to_be_bytes());
    hello.extend(OPTION.to_be_bytes());
    hello.extend(HANDSHAKE.to_be_bytes());
    peer.write_all(&hello)?;
    u32_of(peer)?;
    loop {
        if u64_of(peer)? != OPTION {
            return Err(broken("no option"));
        }
        let option = u32_of(peer)?;
        let length = u32_of(peer)?;
        bytes_of(peer, length)?;
        let mut export = Vec::new();
        export.extend(size.to_be_bytes());
        export.extend(DISK.to_be_bytes());
        match option {
            OPT_EXPORT_NAME => return peer.write_all(&export),
            OPT_GO => {
                // NBD_INFO_EXPORT is type 0.
                let info = [&[0, 0][..], &export].concat();
                option_reply(peer, option, REP_INFO, &info)?;
                return option_reply(peer, option, REP_ACK, &[]);
            }
            OPT_ABORT => {
                option_reply(peer, option, REP_ACK, &[])?;
                return Err(broken("the peer left"));
            }
            _ => option_reply(peer, option, REP_ERR_UNSUP, &[])?,
        }
    }
}

fn option_reply(peer: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(|_| broken("a reply beyond its bound"))?;
    let mut reply = Vec::new();
    reply.extend(OPTION_REPLY.to_be_bytes());
    for number in [option, kind, length] {
        reply.extend(number.to_be_bytes());
    }
    reply.extend(data);
    peer.write_all(&reply)
}

/// The next request and its cookie.
///
/// # Errors
/// If the peer is gone or sends something else.
pub fn next(peer: &mut impl Read) -> io::Result<(u64, Request)> {
    if u32_of(peer)? != REQUEST {
        return Err(broken("no request"));
    }
    // Two bytes of flags, two of the kind.
    let kind = u32_of(peer)? & 0xffff;
    let cookie = u64_of(peer)?;
    let offset = u64_of(peer)?;
    let length = u32_of(peer)?;
    let request = match kind {
        0 if length <= LONGEST => Request::Read { offset, length },
        1 => Request::Write {
            offset,
            bytes: bytes_of(peer, length)?,
        },
        2 => Request::Disconnect,
        3 => Request::Flush,
        _ => return Err(broken("a request that was not offered")),
    };
    Ok((cookie, request))
}

/// Answers a request, with the bytes of a read.
///
/// # Errors
/// If the peer is gone.
pub fn answer(peer: &mut impl Write, cookie: u64, bytes: &[u8]) -> io::Result<()> {
    let mut reply = Vec::with_capacity(16 + bytes.len());
    reply.extend(REPLY.to_be_bytes());
    reply.extend(0u32.to_be_bytes());
    reply.extend(cookie.to_be_bytes());
    reply.extend(bytes);
    peer.write_all(&reply)
}
