//! The kernel's own messages (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg).
//!
//! Only facility 0: a program that writes there gets another one, so these lines can't be forged. It needs CAP_SYSLOG
//! where `kernel.dmesg_restrict` is set.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use aizen_protocol::private::Text;
use aizen_protocol::record::{Body, LogLine, LogOrigin};
use jiff::Timestamp;

use super::{DoorError, Seen};
use crate::clock;
use crate::collect::aside;

/// Reads what matters of the last ten minutes.
pub(super) async fn see() -> Result<Seen, DoorError> {
    aside::run_alone("aizen-kmsg", || read(Path::new("/dev/kmsg"))).await?
}

fn read(path: &Path) -> Result<Seen, DoorError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => DoorError::Capability("CAP_SYSLOG"),
            io::ErrorKind::NotFound => DoorError::Absent("/dev/kmsg"),
            _ => error.into(),
        })?;
    let mut lines = Lines::new(clock::now(), clock::monotonic());
    drain(file, &mut lines)?;
    Ok(lines.seen())
}

/// Each read gives one message, up to the newest.
fn drain(mut file: File, lines: &mut Lines) -> io::Result<()> {
    let mut message = [0; MESSAGE];
    for _ in 0..MESSAGES {
        match file.read(&mut message) {
            Ok(0) => return Ok(()),
            Ok(length) => lines.take(&message[..length]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                // The next message was overwritten meanwhile; reading goes on with the oldest there is.
                io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted => {}
                // Longer than any message the kernel makes.
                io::ErrorKind::InvalidInput => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// The newest lines that matter.
#[derive(Debug)]
pub(crate) struct Lines {
    now: Timestamp,
    since_start: Duration,
    kept: VecDeque<LogLine>,
    beyond: usize,
}

impl Lines {
    pub(crate) fn new(now: Timestamp, since_start: Duration) -> Self {
        Self {
            now,
            since_start,
            kept: VecDeque::new(),
            beyond: 0,
        }
    }

    pub(crate) fn take(&mut self, message: &[u8]) {
        let Some(message) = Message::of(message) else {
            return;
        };
        let age = self.since_start.saturating_sub(message.stamp);
        if age > RECENT || !message.matters() {
            return;
        }
        let Ok(at) = self.now.checked_sub(age) else {
            return;
        };
        if self.kept.len() == LINES {
            self.kept.pop_front();
            self.beyond += 1;
        }
        self.kept.push_back(LogLine {
            at,
            origin: LogOrigin::Kernel,
            program: "kernel".to_owned(),
            severity: message.severity,
            text: Text(message.text),
        });
    }

    pub(crate) fn seen(self) -> Seen {
        let mut gaps = Vec::new();
        if self.beyond > 0 {
            gaps.push(format!(
                "{} older messages of the kernel were left out",
                self.beyond
            ));
        }
        Seen {
            body: Body::Log(self.kept.into()),
            gaps,
        }
    }
}

/// `priority,sequence,microseconds,flags;text`, then lines with properties.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    severity: u8,
    /// Since the system started, without time asleep (`local_clock`).
    stamp: Duration,
    text: String,
}

impl Message {
    /// None for what no kernel says, and for what a program wrote.
    fn of(bytes: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(bytes);
        let (head, rest) = line.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        let stamp: u64 = fields.nth(1)?.parse().ok()?;
        if priority >> 3 != 0 {
            return None;
        }
        let text = rest.split('\n').next().unwrap_or_default();
        Some(Self {
            severity: u8::try_from(priority & 7).ok()?,
            stamp: Duration::from_micros(stamp),
            text: text
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .take(TEXT)
                .collect(),
        })
    }

    /// A warning or worse, or one of those that the network is known by.
    fn matters(&self) -> bool {
        self.severity <= WARNING || {
            let text = self.text.to_lowercase();
            TELLING.iter().any(|words| text.contains(words))
        }
    }
}

const WARNING: u8 = 4;
const RECENT: Duration = Duration::from_secs(600);
const LINES: usize = 200;
const TEXT: usize = 300;
/// `CONSOLE_EXT_LOG_MAX` in the kernel, which a reader's buffer must hold.
const MESSAGE: usize = 8192;
/// More than the largest ring buffer holds: a flood of messages doesn't keep the reader for ever.
const MESSAGES: usize = 200_000;
/// In lower case.
const TELLING: &[&str] = &[
    "netdev watchdog",
    "link is up",
    "link is down",
    "link up",
    "link down",
    "carrier",
    "table full",
    "table overflow",
    "out of memory",
    "oom-kill",
    "ext4-fs",
    "i/o error",
    "under-voltage",
    "undervoltage",
    "throttl",
    "martian",
    "syn flooding",
    "dfs",
    "deauth",
    "disassoc",
    "duplicate address",
    "received packet on",
    "entered blocking state",
    "entered disabled state",
    "topology change",
    "firmware",
    "reset adapter",
    "tx timeout",
    "transmit timed out",
    "nf_conntrack",
    "segfault",
    "blocked for more than",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UP: Duration = Duration::from_secs(5000);

    fn lines() -> Lines {
        Lines::new("2026-03-01T12:00:00Z".parse().unwrap(), UP)
    }

    fn told(messages: &[&str]) -> Vec<LogLine> {
        let mut lines = lines();
        for message in messages {
            lines.take(message.as_bytes());
        }
        lines.kept.into()
    }

    #[test]
    fn a_message_gets_the_time_of_the_wall() {
        let told = told(&[
            "4,1200,4990000000,-;NETDEV WATCHDOG: eth0 (r8169): transmit queue 0 timed out\n SUBSYSTEM=net\n",
        ]);
        assert_eq!(told[0].at, "2026-03-01T11:59:50Z".parse().unwrap());
        assert_eq!((told[0].severity, told[0].origin), (4, LogOrigin::Kernel));
        assert_eq!(
            told[0].text.0,
            "NETDEV WATCHDOG: eth0 (r8169): transmit queue 0 timed out"
        );
    }

    #[test]
    fn a_program_that_writes_to_the_kernels_log_is_not_believed() {
        assert_eq!(
            told(&["12,1,4999000000,-;nf_conntrack: table full, dropping packet"]),
            []
        );
        assert_eq!(told(&["28,1,4999000000,-;eth0: Link is Down"]), []);
    }

    #[test]
    fn a_calm_message_is_kept_only_if_it_is_about_the_network() {
        let told = told(&[
            "6,1,4999000000,-;random: crng init done",
            "6,2,4999000000,-;r8169 0000:03:00.0 eth0: Link is Up - 1Gbps/Full",
        ]);
        assert_eq!(told.len(), 1);
    }

    #[test]
    fn an_old_message_is_history() {
        assert_eq!(told(&["3,1,4000000000,-;EXT4-fs error (device sda1)"]), []);
    }

    #[test]
    fn of_many_messages_the_newest_stay_and_the_rest_is_counted() {
        let mut lines = lines();
        for number in 0..LINES + 5 {
            lines.take(format!("4,{number},4999000000,-;message {number}").as_bytes());
        }
        assert_eq!(lines.kept.front().unwrap().text.0, "message 5");
        assert_eq!(
            lines.seen().gaps,
            ["5 older messages of the kernel were left out"]
        );
    }

    #[test]
    fn a_device_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/kmsg")).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no /dev/kmsg");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bounded_line_or_none(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut lines = lines();
            lines.take(&bytes);
            lines.take(&[b"1,2,4999999999,-;", &bytes[..]].concat());
            prop_assert!(lines.kept.iter().all(|l| l.text.0.chars().count() <= TEXT));
        }
    }
}
