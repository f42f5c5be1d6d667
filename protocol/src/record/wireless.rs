//! Wi-Fi (nl80211).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::private::{Mac, Name, private_fields};

/// Station or access point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WirelessMode {
    /// Client of an access point.
    Station,
    /// Access point.
    AccessPoint,
    /// Mesh, monitor, …
    Other,
}

/// One wireless interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wireless {
    /// Index of the link.
    pub link: u32,
    /// Station or access point.
    pub mode: WirelessMode,
    /// Network name.
    pub ssid: Option<Name>,
    /// Centre of the primary channel, MHz.
    pub frequency_mhz: Option<u32>,
    /// Width, MHz.
    pub width_mhz: Option<u32>,
    /// Noise on the channel, dBm.
    pub noise_dbm: Option<i8>,
    /// Time the channel was watched, milliseconds, total (`NL80211_SURVEY_INFO_TIME`).
    pub active_ms: Option<u64>,
    /// Time it was busy, total.
    pub busy_ms: Option<u64>,
    /// Transmit power, dBm.
    pub tx_power_dbm: Option<i8>,
    /// The other ends: clients, or the access point.
    pub stations: Vec<Station>,
}

/// The other end of a wireless link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// Hardware address.
    pub mac: Mac,
    /// Signal, dBm.
    pub signal_dbm: Option<i8>,
    /// Packets sent to it, total.
    pub tx_packets: u32,
    /// Retries, total.
    pub tx_retries: u32,
    /// Given up, total.
    pub tx_failed: u32,
    /// Sending rate, kb/s.
    pub tx_kbps: Option<u32>,
    /// Receiving rate, kb/s.
    pub rx_kbps: Option<u32>,
    /// Connected for, seconds.
    pub connected_s: Option<u32>,
    /// May exchange data (the handshake finished).
    pub authorised: Option<bool>,
}

/// What happened on a wireless interface (nl80211 `mlme`, `regulatory` and `scan` groups).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum WirelessChange {
    /// A station was sent away or left, with the reason code of IEEE 802.11.
    Deauthenticated {
        /// Reason code.
        reason: u16,
    },
    /// Radar was detected on the channel.
    Radar,
    /// The channel availability check began or ended.
    AvailabilityCheck {
        /// True when it ended well.
        finished: bool,
    },
    /// The channel changed.
    Channel {
        /// New frequency, MHz.
        frequency_mhz: u32,
    },
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WirelessEvent {
    /// When it was heard.
    pub at: Timestamp,
    /// Index of the link.
    pub link: u32,
    /// The station concerned.
    pub station: Option<Mac>,
    /// What happened.
    pub change: WirelessChange,
}

/// All wireless interfaces and what was heard of them since the daemon runs; the newest 256 events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radio {
    /// Interfaces.
    pub interfaces: Vec<Wireless>,
    /// Events, the oldest first.
    pub events: Vec<WirelessEvent>,
}

private_fields! {
    Radio { interfaces, events }
    Wireless { ssid, stations }
    Station { mac }
    WirelessEvent { station }
}
