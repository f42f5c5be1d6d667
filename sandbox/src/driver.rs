//! What the driver of an interface counts, by the driver's own names (`ETHTOOL_GSTATS`, linux/ethtool.h). Only the ioctl
//! has them; ethtool netlink tells the standard groups alone.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::sys::{self, Guarded};

/// Counters of one interface at most; drivers with a queue for each of many processors have some thousand.
pub const MOST: usize = 8192;

/// Every counter of an interface with its name, in the driver's order; nothing where the driver counts nothing.
///
/// # Errors
/// No such interface, a name of more than 15 bytes, or a driver with more than [`MOST`] counters.
pub fn statistics(interface: &str) -> io::Result<Vec<(String, u64)>> {
    let name = name(interface)?;
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match read(&socket, &name) {
        // A driver without statistics, or without any of ethtool.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP)) => Ok(Vec::new()),
        read => read,
    }
}

fn read(
    socket: &impl AsFd,
    name: &[libc::c_char; libc::IFNAMSIZ],
) -> io::Result<Vec<(String, u64)>> {
    let mut info = Guarded::new(INFO)?;
    put(info.bytes_mut(), 0, &ETHTOOL_GSSET_INFO.to_ne_bytes());
    put(info.bytes_mut(), 8, &(1_u64 << ETH_SS_STATS).to_ne_bytes());
    sys::ethtool(socket, name, &mut info)?;
    let count = match u64_at(info.bytes(), 8) {
        Some(0) | None => return Ok(Vec::new()),
        Some(_) => u32_at(info.bytes(), 16).unwrap_or_default(),
    };
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if wanted > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the driver has {count} counters, more than {MOST}"),
        ));
    }
    let mut names = Guarded::new(NAMES + wanted * NAME)?;
    put(names.bytes_mut(), 0, &ETHTOOL_GSTRINGS.to_ne_bytes());
    put(names.bytes_mut(), 4, &ETH_SS_STATS.to_ne_bytes());
    put(names.bytes_mut(), 8, &count.to_ne_bytes());
    sys::ethtool(socket, name, &mut names)?;
    let mut totals = Guarded::new(TOTALS + wanted * 8)?;
    put(totals.bytes_mut(), 0, &ETHTOOL_GSTATS.to_ne_bytes());
    put(totals.bytes_mut(), 4, &count.to_ne_bytes());
    sys::ethtool(socket, name, &mut totals)?;
    Ok(pairs(names.bytes(), totals.bytes(), wanted))
}

/// `struct ethtool_gstrings` beside `struct ethtool_stats`. The driver may have made or lost a queue between the two
/// questions: then names and numbers don't belong together, and nothing is told.
fn pairs(names: &[u8], totals: &[u8], wanted: usize) -> Vec<(String, u64)> {
    let counts = (u32_at(names, 8), u32_at(totals, 4));
    let same = |count: Option<u32>| count.is_some_and(|c| usize::try_from(c) == Ok(wanted));
    if !same(counts.0) || !same(counts.1) {
        return Vec::new();
    }
    let all = (0..wanted).map_while(|n| {
        let name = names.get(NAMES + n * NAME..)?.get(..NAME)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
        let text = String::from_utf8_lossy(&name[..end]).trim().to_owned();
        Some((text, u64_at(totals, TOTALS + n * 8)?))
    });
    all.filter(|(name, _)| !name.is_empty()).collect()
}

fn name(interface: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut name = [0; libc::IFNAMSIZ];
    if interface.is_empty() || interface.len() >= libc::IFNAMSIZ || interface.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in name.iter_mut().zip(interface.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(name)
}

fn put(memory: &mut [u8], place: usize, value: &[u8]) {
    memory[place..place + value.len()].copy_from_slice(value);
}

fn u32_at(memory: &[u8], place: usize) -> Option<u32> {
    let chunk = memory.get(place..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*chunk))
}

fn u64_at(memory: &[u8], place: usize) -> Option<u64> {
    let chunk = memory.get(place..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*chunk))
}

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETH_SS_STATS: u32 = 1;
/// `struct ethtool_sset_info` with one count.
const INFO: usize = 20;
/// Where the data of `struct ethtool_gstrings` and `struct ethtool_stats` begin.
const NAMES: usize = 12;
const TOTALS: usize = 8;
/// `ETH_GSTRING_LEN`
const NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(names: &[&[u8]], totals: &[u64]) -> (Vec<u8>, Vec<u8>) {
        let count = |n: usize| u32::try_from(n).unwrap().to_ne_bytes();
        let mut first = vec![0; 8];
        first.extend(count(names.len()));
        for name in names {
            let mut field = name.to_vec();
            field.resize(NAME, 0);
            first.extend(field);
        }
        let mut second = vec![0; 4];
        second.extend(count(totals.len()));
        second.extend(totals.iter().flat_map(|total| total.to_ne_bytes()));
        (first, second)
    }

    #[test]
    fn names_and_numbers_are_told_in_pairs_and_a_name_may_fill_its_field() {
        let long = [b'x'; NAME];
        let (names, totals) = answers(&[b"rx_crc_errors", &long, b"", b" tx \xff"], &[7, 8, 9, 10]);
        let told = pairs(&names, &totals, 4);
        let expected = [
            ("rx_crc_errors".to_owned(), 7),
            ("x".repeat(NAME), 8),
            ("tx \u{fffd}".to_owned(), 10),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_does_not_belong_together_or_is_cut_tells_nothing_beyond() {
        let (names, totals) = answers(&[b"a", b"b"], &[1, 2, 3]);
        assert_eq!(pairs(&names, &totals, 2), []);
        let (names, totals) = answers(&[b"a", b"b"], &[1, 2]);
        assert_eq!(pairs(&names, &totals[..totals.len() - 1], 2).len(), 1);
        assert_eq!(pairs(&names[..3], &totals, 2), []);
        assert_eq!(pairs(&[], &[], 2), []);
    }

    #[test]
    fn memory_is_guarded_and_a_page_is_all_that_a_byte_costs() {
        let mut memory = Guarded::new(1).unwrap();
        let length = memory.bytes().len();
        assert_eq!(length, rustix::param::page_size());
        memory.bytes_mut()[length - 1] = 9;
        assert_eq!(memory.bytes()[length - 1], 9);
    }

    #[test]
    fn a_name_that_is_none_and_an_interface_that_is_not_there_are_errors() {
        for name in ["", "far_too_long_for_one", "a\0b", "nothing0"] {
            assert!(statistics(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn every_interface_of_this_machine_tells_its_counters_by_name_or_has_none() {
        for entry in std::fs::read_dir("/sys/class/net").unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !entry.path().is_dir() {
                continue;
            }
            let told = match statistics(&name) {
                // It went meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                told => told.unwrap(),
            };
            let lengths = told.iter().map(|(name, _)| name.chars().count());
            assert!(
                lengths.clone().all(|length| (1..=NAME).contains(&length)),
                "{told:?}"
            );
        }
    }

    #[test]
    fn the_loopback_counts_nothing() {
        assert_eq!(statistics("lo").unwrap(), []);
    }
}
