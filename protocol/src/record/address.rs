//! Addresses, and who else is on the link.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::private::{Mac, Prefix, private_fields};

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Index of the interface.
    pub link: u32,
    /// Address and prefix length.
    pub address: Prefix,
    /// `global`, `link`, `host`, `site` or a number (rt_scopes).
    pub scope: String,
    /// Duplicate address detection failed (`IFA_F_DADFAILED`, RFC 4862).
    pub dad_failed: bool,
    /// Detection still runs (`IFA_F_TENTATIVE`).
    pub tentative: bool,
    /// Preferred lifetime is over (`IFA_F_DEPRECATED`).
    pub deprecated: bool,
    /// Not permanent: from DHCP or a router advertisement.
    pub dynamic: bool,
    /// Seconds the address is still valid; none for ever.
    pub valid_s: Option<u32>,
    /// Seconds it is still preferred for new connections; none for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_s: Option<u32>,
}

/// Neighbour unreachability state (RFC 4861, `NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the states are the kernel's NUD_*")]
pub enum NeighbourState {
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    Noarp,
    Permanent,
    None,
}

/// One neighbour entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Index of the interface.
    pub link: u32,
    /// Protocol address.
    pub address: IpAddr,
    /// Hardware address, once known.
    pub mac: Option<Mac>,
    /// State.
    pub state: NeighbourState,
    /// It says that it is a router (`NTF_ROUTER`, RFC 4861).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub router: bool,
    /// Milliseconds since it was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_ms: Option<u64>,
}

/// How a duplicate was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateBy {
    /// ARP probe (RFC 5227).
    Arp,
    /// IPv6 duplicate address detection (RFC 4862).
    Dad,
}

/// An address of ours that somebody else has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Duplicate {
    /// Index of the interface.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Who else answered; empty if the kernel doesn't say.
    pub others: Vec<Mac>,
    /// How it was seen.
    pub by: DuplicateBy,
}

/// One neighbour table (`RTM_GETNEIGHTBL`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighbourTable {
    /// 4 or 6.
    pub family: u8,
    /// Entries.
    pub entries: u32,
    /// `gc_thresh1` to `gc_thresh3`; at the third nothing new fits.
    pub thresholds: [u32; 3],
    /// Times the table was full (`ndts_table_fulls`), total.
    pub overflows: u64,
}

private_fields! {
    Address { address }
    Neighbour { address, mac }
    NeighbourTable {}
    Duplicate { address, others }
}
