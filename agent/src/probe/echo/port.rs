//! One family's socket, and the requests under way on it.

use std::io;

use nix::errno::Errno;
use nix::sys::socket::SockaddrStorage;

use super::Plan;
use super::window::{Slot, State, Window, low};
use crate::clock;
use crate::probe::packet::{HEADER, Mark, write_request};
use crate::probe::socket::{BATCH, IcmpSocket, OpenError};

/// One family's socket and what is under way on it.
pub(super) struct Port {
    pub(super) socket: IcmpSocket,
    pub(super) window: Window,
    /// Which run of the program this is.
    pub(super) run: u32,
    /// Requests that are due: target and number.
    pub(super) pending: Vec<(u32, u32)>,
    packets: Vec<u8>,
    length: usize,
    /// Most requests in one call.
    pub(super) room: usize,
    /// Until then the kernel has no room for more.
    pub(super) blocked: u64,
    /// Serial of the packet that the kernel's stamps number 0.
    first_key: u32,
    /// Packets that left since the error queue was read.
    pub(super) unstamped: usize,
    /// What the drop counter read last, and when.
    pub(super) drops: u32,
    drops_at: u64,
}

impl Port {
    /// Opens a family's socket; the payload of its packets is written once.
    pub(super) fn open(plan: &Plan, ipv4: bool) -> Result<Self, OpenError> {
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let io = |source| OpenError::Io { family, source };
        let socket = IcmpSocket::open(ipv4, plan.device.as_deref())?;
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(|e| io(io::Error::other(e)))?;
        let length = HEADER + usize::from(plan.size);
        let room = (PACKETS / length).clamp(1, BATCH);
        let mut packets = vec![0; length * room];
        for packet in packets.chunks_exact_mut(length) {
            for (place, byte) in packet.iter_mut().enumerate() {
                *byte = u8::try_from(place & 0xff).unwrap_or_default();
            }
        }
        let mut port = Self {
            socket,
            window: Window::default(),
            run: u32::from_be_bytes(run),
            pending: Vec::new(),
            packets,
            length,
            room,
            blocked: 0,
            first_key: 0,
            unstamped: 0,
            drops: 0,
            drops_at: 0,
        };
        port.start_stamps();
        Ok(port)
    }

    /// Without stamps of sending a request counts from before the call that sent it.
    pub(super) fn start_stamps(&mut self) {
        if self.socket.stamp_sending().is_ok() {
            self.first_key = self.window.next_serial();
        }
    }

    /// Sends what is pending; gives how many left. An error is about the first.
    pub(super) fn send(&mut self, plan: &Plan, now: u64) -> Result<usize, Errno> {
        let identifier = self.socket.identifier.unwrap_or_default();
        let mut to: Vec<Option<SockaddrStorage>> = Vec::with_capacity(self.pending.len());
        let packets = self.packets.chunks_exact_mut(self.length);
        let mut serial = self.window.next_serial();
        for ((target, _), packet) in self.pending.iter().zip(packets) {
            let mark = Mark {
                run: self.run,
                serial,
            };
            let (ipv4, number) = (self.socket.ipv4, low(serial));
            write_request(packet, ipv4, identifier, number, Some(mark));
            let target = plan.targets[*target as usize];
            to.push(Some(IcmpSocket::address(target.address, target.link)));
            serial = serial.wrapping_add(1);
        }
        let bytes = &self.packets[..to.len() * self.length];
        let sent_wall = clock::wall_ns();
        let left = self.socket.send(bytes, self.length, &to)?;
        self.unstamped += left;
        for (target, number) in &self.pending[..left] {
            self.window.push(Slot {
                target: *target,
                number: *number,
                serial: self.window.next_serial(),
                sent: now,
                sent_wall,
                drops: self.drops,
                state: State::Open,
            });
        }
        Ok(left)
    }

    /// The kernel says when a packet left.
    pub(super) fn stamp(&mut self, key: u32, at_ns: u64) {
        if let Some(slot) = self.window.by_serial(self.first_key.wrapping_add(key))
            // A stamp from before a new start of the count belongs to another packet.
            && at_ns >= slot.sent_wall
        {
            slot.sent_wall = at_ns;
        }
    }

    /// Reads the drop counter, unless it was read a moment ago.
    pub(super) fn read_drops(&mut self, now: u64) {
        if now.saturating_sub(self.drops_at) >= DROPS_EVERY
            && let Some(drops) = self.socket.dropped()
        {
            self.drops = drops;
            self.drops_at = now;
        }
    }
}

/// Bytes in one call.
const PACKETS: usize = 64 << 10;
const DROPS_EVERY: u64 = 20_000_000;
