//! The machine: clock, load, memory, disks, services, logs.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{Text, private_fields};

/// The device's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// True if the kernel says a daemon disciplines the clock (`adjtimex`, not `STA_UNSYNC`).
    pub kernel_synchronised: Option<bool>,
    /// One SNTP exchange (RFC 4330) with each configured server.
    pub servers: Vec<TimeServer>,
}

/// One SNTP exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeServer {
    /// Who was asked.
    pub server: IpAddr,
    /// Server's clock minus the device's, milliseconds; none without a usable answer.
    pub offset_ms: Option<i64>,
    /// Round trip.
    pub rtt_us: Option<u32>,
    /// Stratum (RFC 5905); 0 is a kiss-of-death.
    pub stratum: Option<u8>,
}

/// Load, memory, disks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Processors.
    pub cpus: u16,
    /// 1, 5 and 15 minute load.
    pub load: [f32; 3],
    /// Busy share of all CPUs since the round before, percent.
    pub cpu_percent: Option<f32>,
    /// Memory.
    pub memory_total_bytes: u64,
    /// `MemAvailable`.
    pub memory_available_bytes: u64,
    /// Processes killed for want of memory since boot (`oom_kill` of /proc/vmstat).
    pub oom_kills: Option<u64>,
    /// Hottest sensor, degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Swap, bytes.
    #[serde(default)]
    pub swap_total_bytes: u64,
    /// Free swap, bytes.
    #[serde(default)]
    pub swap_free_bytes: u64,
    /// Temperature at which the device slows down or stops, degrees Celsius (the lowest trip point of kind `hot`,
    /// `passive` or `critical` of the hottest zone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_c: Option<f32>,
    /// Present clock of the slowest processor in percent of its highest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_percent: Option<f32>,
    /// The supply fell below its limit since boot (hwmon `in*_lcrit_alarm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undervoltage: Option<bool>,
    /// Why the device started, as far as it says: `power`, `watchdog`, `panic`, `software`, or the platform's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_reason: Option<String>,
    /// Times the watchdog restarted it, if it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_resets: Option<u32>,
    /// Records of a crash that wait in pstore.
    #[serde(default)]
    pub crash_records: u32,
    /// Mounted file systems that hold data.
    pub disks: Vec<Disk>,
}

/// One file system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Mount point.
    pub mount: Text,
    /// File system type.
    pub fs: String,
    /// Size.
    pub total_bytes: u64,
    /// Free for unprivileged users.
    pub available_bytes: u64,
    /// Inodes; 0 if the file system has no such bound.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
    /// Mounted read-only.
    pub read_only: bool,
    /// `/etc/fstab` wants it writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_writable: Option<bool>,
    /// Errors that the file system counted (`/sys/fs/ext4/*/errors_count`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
}

/// Time that one processor spent, milliseconds since boot (`/proc/stat`, proc(5)): compare two records of one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the kinds are those of proc_stat(5)")]
pub struct CpuTimes {
    pub cpu: u16,
    pub user_ms: u64,
    pub nice_ms: u64,
    pub system_ms: u64,
    pub idle_ms: u64,
    pub iowait_ms: u64,
    pub irq_ms: u64,
    pub softirq_ms: u64,
    pub steal_ms: u64,
}

/// One line of a pressure file: the share of time in which tasks waited (`Documentation/accounting/psi.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f32,
    /// Percent of the last minute.
    pub avg60: f32,
    /// Total, microseconds.
    pub total_us: u64,
}

/// Pressure stall information; none where the kernel doesn't give it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pressure {
    /// Some tasks waited for a processor.
    pub cpu: Option<Stall>,
    /// Some tasks waited for memory.
    pub memory_some: Option<Stall>,
    /// All tasks waited for memory.
    pub memory_full: Option<Stall>,
    /// Some tasks waited for disks.
    pub io_some: Option<Stall>,
    /// All tasks waited for disks.
    pub io_full: Option<Stall>,
}

/// Who looks after services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceManager {
    /// systemd, over D-Bus.
    Systemd,
    /// OpenWrt's procd, over ubus.
    Procd,
}

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Runs.
    Running,
    /// Is started, or waits to be started again.
    Starting,
    /// Is being stopped.
    Stopping,
    /// Stopped, and nobody wants otherwise.
    Stopped,
    /// Ended in a way that its manager calls a failure.
    Failed,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Name without suffix (`dnsmasq`).
    pub name: String,
    /// Its manager.
    pub manager: ServiceManager,
    /// Where it is.
    pub state: ServiceState,
    /// Starts at boot (enabled).
    pub wanted: Option<bool>,
    /// Times its manager started it again by itself.
    pub restarts: Option<u32>,
    /// Exit code of the last main process, if it exited.
    pub exit_code: Option<i32>,
    /// Signal that ended the last main process.
    pub signal: Option<i32>,
    /// `exit-code`, `signal`, `watchdog`, `oom-kill`, `start-limit-hit`, … (systemd's `Result`).
    pub result: Option<String>,
    /// Since when it is in this state.
    pub since: Option<Timestamp>,
}

/// Where a line of log came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogOrigin {
    /// The kernel's own facility of `/dev/kmsg`: programs can't write it.
    Kernel,
    /// The journal.
    Journal,
    /// A file of syslog.
    File,
}

/// One line of log: hostile text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLine {
    /// When, by the writer's clock.
    pub at: Timestamp,
    /// Where from.
    pub origin: LogOrigin,
    /// Program or unit that says to have written it.
    pub program: String,
    /// Severity of RFC 5424: 0 emergency to 7 debug.
    pub severity: u8,
    /// The line, at most 300 characters.
    pub text: Text,
}

/// A file of configuration, and when it last changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Path.
    pub path: Text,
    /// Last change of its content.
    pub modified: Timestamp,
    /// SHA-256 of its content, the first 16 hexadecimal digits.
    pub digest: String,
}

private_fields! {
    Time { servers }
    TimeServer { server }
    Host { disks }
    Disk { mount }
    CpuTimes {}
    Pressure {}
    Service {}
    LogLine { text }
    ConfigFile { path }
}
