//! The speeds of link modes, and why there is no link (linux/ethtool.h).

/// The fastest of the modes with these numbers, Mb/s; none if there is none with a speed.
pub(super) fn fastest(bits: impl Iterator<Item = usize>) -> Option<u32> {
    bits.filter_map(mbps).max()
}

/// The speed of one `ETHTOOL_LINK_MODE_*_BIT`; none for what is no speed (autonegotiation, pause, media, error
/// correction) and for modes of newer kernels.
fn mbps(bit: usize) -> Option<u32> {
    Some(match bit {
        0 | 1 | 92 | 99..=102 => 10,
        2 | 3 | 67 | 90 | 91 => 100,
        4 | 5 | 17 | 41 | 68 => 1000,
        15 | 47 => 2500,
        48 => 5000,
        12 | 18..=20 | 42..=46 => 10_000,
        21 | 22 => 20_000,
        31..=33 => 25_000,
        23..=26 => 40_000,
        34 | 35 | 40 | 52..=56 => 50_000,
        27..=30 => 56_000,
        36..=39 | 57..=61 | 75..=79 => 100_000,
        62..=66 | 80..=84 | 103..=108 => 200_000,
        69..=73 | 85..=89 | 109..=114 => 400_000,
        93..=98 | 115..=120 => 800_000,
        _ => return None,
    })
}

/// `ETHTOOL_LINK_EXT_STATE_*` in the kernel's words; a number for what came later.
pub(super) fn reason(state: u8) -> String {
    let words = match state {
        0 => "autonegotiation",
        1 => "link training failure",
        2 => "logical mismatch",
        3 => "bad signal integrity",
        4 => "no cable",
        5 => "cable issue",
        6 => "EEPROM issue",
        7 => "calibration failure",
        8 => "power budget exceeded",
        9 => "overheat",
        10 => "module",
        other => return format!("state {other}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autonegotiation_pause_and_error_correction_are_no_speeds() {
        assert_eq!(
            fastest([6, 7, 10, 13, 14, 16, 49, 50, 51, 74].into_iter()),
            None
        );
        assert_eq!(fastest([1, 3, 5, 6, 13].into_iter()), Some(1000));
        assert_eq!(fastest([5, 47, 500].into_iter()), Some(2500));
    }
}
