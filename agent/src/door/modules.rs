//! Diagnostics of pluggable modules, read from their memory by page (ethtool netlink, `MODULE_EEPROM_GET`).
//!
//! It needs CAP_NET_ADMIN and Linux 5.13. A port without a module, or whose driver gives no access, is left out.

pub(crate) mod qsfp;
pub(crate) mod sfp;

use std::io;

use aizen_protocol::private::Text;
use aizen_protocol::record::{Body, Link, Module};

use super::attribute::{Attributes, push, text};
use super::netlink::{GENERIC, NETLINK_GENERIC, ask_one, generic, generic_family};
use super::{DoorError, Seen};
use crate::collect::{NetlinkError, link};

/// Reads the module of every Ethernet port that has one.
pub(super) async fn see() -> Result<Seen, DoorError> {
    let links = link::collect().await?;
    let mut seen = Seen {
        body: Body::Modules(Vec::new()),
        gaps: links.gaps,
    };
    let ports: Vec<_> = links.value.iter().filter(|link| is_port(link)).collect();
    if ports.is_empty() {
        return Ok(seen);
    }
    let family = generic_family("ethtool").await?;
    let family = family.ok_or(DoorError::Absent("netlink interface of ethtool"))?;
    let mut modules = Vec::new();
    for (place, port) in ports.iter().enumerate() {
        if place == PORTS {
            seen.gaps.push(format!(
                "{} more ports were not asked for a module",
                ports.len() - place
            ));
            break;
        }
        let memory = Memory {
            family,
            link: port.index,
        };
        match memory.module().await {
            Ok(Some(module)) => modules.push(module),
            Ok(None) => {}
            Err(NetlinkError::Refused(error))
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                return Err(DoorError::Capability("CAP_NET_ADMIN"));
            }
            // A driver that gives no access says so in several ways; a bus that fails is a fault of the module.
            Err(NetlinkError::Refused(error)) if is_faulty(&error) => {
                seen.gaps.push(format!(
                    "the module of {} can't be read: {error}",
                    port.name
                ));
            }
            Err(NetlinkError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    seen.body = Body::Modules(modules);
    Ok(seen)
}

/// A port of hardware: no virtual link has a module.
fn is_port(link: &Link) -> bool {
    !link.loopback && link.driver_kind.is_none() && link.mac.is_some()
}

fn is_faulty(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(nix::errno::Errno::from_raw);
    matches!(
        errno,
        Some(
            nix::errno::Errno::EIO
                | nix::errno::Errno::ENXIO
                | nix::errno::Errno::EREMOTEIO
                | nix::errno::Errno::ETIMEDOUT
        )
    )
}

/// One page of 128 bytes.
pub(crate) type Page = [u8; PAGE];

/// The memory of one module.
struct Memory {
    family: u16,
    link: u32,
}

impl Memory {
    async fn module(&self) -> Result<Option<Module>, NetlinkError> {
        let lower = self.page(A0, 0, 0).await?;
        let module = match lower[0] {
            SFP => {
                let watched = sfp::is_watched(&lower);
                let diagnostics = if watched {
                    Some(self.page(A2, 0, 0).await?)
                } else {
                    None
                };
                sfp::decode(&lower, diagnostics.as_ref())
            }
            QSFP | QSFP_PLUS | QSFP28 => {
                let upper = self.page(A0, 0, HALF).await?;
                let thresholds = if qsfp::has_pages(&lower) {
                    Some(self.page(A0, 3, HALF).await?)
                } else {
                    None
                };
                qsfp::decode(&lower, &upper, thresholds.as_ref())
            }
            // Other kinds (CMIS) keep their values elsewhere: that the module is there is what can be said.
            _ => Module::default(),
        };
        Ok(Some(Module {
            link: self.link,
            ..module
        }))
    }

    /// Half a page: `offset` 0 is the lower one, which is the same on all pages.
    async fn page(&self, address: u8, page: u8, offset: u32) -> Result<Page, NetlinkError> {
        let mut header = Vec::new();
        push(
            &mut header,
            ETHTOOL_A_HEADER_DEV_INDEX,
            &self.link.to_ne_bytes(),
        );
        let mut question = generic(ETHTOOL_MSG_MODULE_EEPROM_GET, 1);
        push(
            &mut question,
            ETHTOOL_A_MODULE_EEPROM_HEADER | NLA_F_NESTED,
            &header,
        );
        push(
            &mut question,
            ETHTOOL_A_MODULE_EEPROM_OFFSET,
            &offset.to_ne_bytes(),
        );
        push(
            &mut question,
            ETHTOOL_A_MODULE_EEPROM_LENGTH,
            &HALF.to_ne_bytes(),
        );
        push(&mut question, ETHTOOL_A_MODULE_EEPROM_PAGE, &[page]);
        push(&mut question, ETHTOOL_A_MODULE_EEPROM_BANK, &[0]);
        push(
            &mut question,
            ETHTOOL_A_MODULE_EEPROM_I2C_ADDRESS,
            &[address],
        );
        let answer = ask_one(NETLINK_GENERIC, self.family, &question).await?;
        let data = Attributes(answer.get(GENERIC..).unwrap_or_default())
            .find(ETHTOOL_A_MODULE_EEPROM_DATA);
        let page = data.and_then(|data| Page::try_from(data).ok());
        page.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData).into())
    }
}

/// Vendor and part, as two fields padded with spaces.
fn part(vendor: &[u8], part: &[u8]) -> Text {
    let words = [text(vendor), text(part)];
    Text(
        words
            .map(|word| word.trim().to_owned())
            .join(" ")
            .trim()
            .to_owned(),
    )
}

/// A number of two bytes; both places are within a page, as every caller names a constant.
fn word(page: &[u8], at: usize) -> u16 {
    page.get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// Light in units of 0.1 µW (SFF-8472 9.4, SFF-8636 6.2.4). No light at all is −40 dBm, the least that can be told.
fn dbm(tenth_microwatts: f32) -> f32 {
    10.0 * (tenth_microwatts.max(1.0) / 10_000.0).log10()
}

const PORTS: usize = 64;
const PAGE: usize = 128;
const HALF: u32 = 128;
/// The two addresses on the module's bus.
const A0: u8 = 0x50;
const A2: u8 = 0x51;
/// Identifiers (SFF-8024, table 4-1).
const SFP: u8 = 0x03;
const QSFP: u8 = 0x0c;
const QSFP_PLUS: u8 = 0x0d;
const QSFP28: u8 = 0x11;
const NLA_F_NESTED: u16 = 0x8000;
const ETHTOOL_MSG_MODULE_EEPROM_GET: u8 = 31;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_MODULE_EEPROM_HEADER: u16 = 1;
const ETHTOOL_A_MODULE_EEPROM_OFFSET: u16 = 2;
const ETHTOOL_A_MODULE_EEPROM_LENGTH: u16 = 3;
const ETHTOOL_A_MODULE_EEPROM_PAGE: u16 = 4;
const ETHTOOL_A_MODULE_EEPROM_BANK: u16 = 5;
const ETHTOOL_A_MODULE_EEPROM_I2C_ADDRESS: u16 = 6;
const ETHTOOL_A_MODULE_EEPROM_DATA: u16 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn light_is_told_in_decibels_and_darkness_has_a_floor() {
        assert!(dbm(10_000.0).abs() < 0.001);
        assert!((dbm(1000.0) + 10.0).abs() < 0.001);
        assert!((dbm(0.0) + 40.0).abs() < 0.001);
    }

    #[test]
    fn a_virtual_link_has_no_module() {
        let port = Link {
            mac: Some(aizen_protocol::private::Mac([2, 0, 0, 0, 0, 1])),
            ..Link::default()
        };
        assert!(is_port(&port));
        let veth = Link {
            driver_kind: Some("veth".to_owned()),
            ..port
        };
        assert!(!is_port(&veth));
    }
}
