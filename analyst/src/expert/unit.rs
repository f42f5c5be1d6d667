//! How numbers are written in facts.

use std::fmt::Display;

/// Milliseconds with one digit after the point below 100.
pub(super) fn millis(us: u32) -> String {
    if us < 100_000 {
        format!("{}.{} ms", us / 1000, us % 1000 / 100)
    } else {
        format!("{} ms", us / 1000)
    }
}

/// A time span that may be long.
pub(super) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// Bytes in binary units.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `a, b, c`.
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(", ")
}

/// The middle one; of an even number the lower of the two in the middle.
pub(super) fn median(values: &[u32]) -> Option<u32> {
    quantile(values, 50)
}

/// The smallest value that at least `percent` of the values do not exceed.
pub(super) fn quantile(values: &[u32], percent: usize) -> Option<u32> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(millis(420), "0.4 ms");
        assert_eq!(millis(345_678), "345 ms");
        assert_eq!(span(61_500), "61.5 s");
        assert_eq!(span(3 * 86_400_000), "3 days");
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[9]), Some(9));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2));
        assert_eq!(quantile(&[1, 2, 3, 4], 75), Some(3));
        assert_eq!(quantile(&[1, 2, 3, 4], 100), Some(4));
    }
}
