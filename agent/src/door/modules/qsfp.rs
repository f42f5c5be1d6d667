//! QSFP, QSFP+ and QSFP28 (SFF-8636): measurements on the lower page, identity on page 00h, thresholds on page 03h.

use aizen_protocol::record::Module;

use super::{Page, dbm, part, word};

/// There are pages above the first (byte 2, `Flat_mem`).
pub(crate) fn has_pages(lower: &Page) -> bool {
    lower[2] & 0x04 == 0
}

/// Decodes the pages; places of upper pages count from 128 in the standard.
pub(crate) fn decode(lower: &Page, upper: &Page, thresholds: Option<&Page>) -> Module {
    let module = Module {
        part: part(&upper[148 - 128..164 - 128], &upper[168 - 128..184 - 128]),
        ..Module::default()
    };
    if lower[2] & NOT_READY != 0 {
        return module;
    }
    let raw = [34, 36, 38, 40].map(|at| word(lower, at));
    let weakest = raw.iter().copied().min().unwrap_or_default();
    let limits = thresholds.map(|page| (word(page, 178 - 128), word(page, 176 - 128)));
    Module {
        temperature_c: Some(f32::from(word(lower, 22).cast_signed()) / 256.0),
        voltage_v: Some(f32::from(word(lower, 26)) * 1e-4),
        bias_ma: Some(f32::from(word(lower, 42)) * 2e-3),
        // Byte 220, bit 2: the module measures what it sends.
        tx_power_dbm: (upper[220 - 128] & 0x04 != 0).then(|| dbm(f32::from(word(lower, 50)))),
        rx_power_dbm: Some(dbm(f32::from(weakest))),
        rx_alarm_dbm: limits
            .filter(|(low, high)| high > low)
            .map(|(low, high)| [dbm(f32::from(low)), dbm(f32::from(high))]),
        rx_los: Some(lower[3] & RX_LOS != 0),
        alarms: alarms(lower),
        ..module
    }
}

/// Flags at 6, 7 and 9 to 14: four bits each, high alarm, low alarm, high warning, low warning.
fn alarms(lower: &Page) -> Vec<String> {
    let mut set = Vec::new();
    let mut tell = |name: &str, bits: u8| {
        for (place, level) in LEVELS.iter().enumerate() {
            if bits & (0x8 >> place) != 0 {
                set.push(format!("{name} {level}"));
            }
        }
    };
    tell("temperature", lower[6] >> 4);
    tell("voltage", lower[7] >> 4);
    for (at, name) in [(9, "rx power"), (11, "bias"), (13, "tx power")] {
        for lane in 0..4 {
            let byte = lower[at + lane / 2];
            let bits = if lane % 2 == 0 { byte >> 4 } else { byte & 0xf };
            tell(&format!("{name} of lane {}", lane + 1), bits);
        }
    }
    set
}

const NOT_READY: u8 = 1;
/// Of any lane.
const RX_LOS: u8 = 0x0f;
const LEVELS: [&str; 4] = ["high alarm", "low alarm", "high warning", "low warning"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(page: &mut Page, at: usize, words: &[u16]) {
        for (place, word) in words.iter().enumerate() {
            page[at + place * 2..][..2].copy_from_slice(&word.to_be_bytes());
        }
    }

    fn module() -> (Page, Page, Page) {
        let (mut lower, mut upper, mut thresholds) = ([0; 128], [0; 128], [0; 128]);
        lower[0] = 0x11;
        put(&mut lower, 22, &[0x2000, 0, 33_000]);
        put(
            &mut lower,
            34,
            &[8000, 7000, 40, 9000, 3500, 3500, 3500, 3500, 10_000],
        );
        lower[3] = 0x04;
        lower[10] = 0x40;
        upper[20..36].copy_from_slice(b"Arista Networks ");
        upper[40..56].copy_from_slice(b"QSFP-100G-LR4   ");
        upper[92] = 0x0c;
        put(&mut thresholds, 48, &[28_183, 437]);
        (lower, upper, thresholds)
    }

    #[test]
    fn the_weakest_lane_speaks_for_the_module() {
        let (lower, upper, thresholds) = module();
        let told = decode(&lower, &upper, Some(&thresholds));
        assert_eq!(told.part.0, "Arista Networks QSFP-100G-LR4");
        let rx = told.rx_power_dbm.unwrap();
        assert!((rx + 23.98).abs() < 0.01, "{rx}");
        assert!(rx < told.rx_alarm_dbm.unwrap()[0]);
        assert!((told.tx_power_dbm.unwrap()).abs() < 0.01);
        assert_eq!(told.temperature_c, Some(32.0));
        assert_eq!(told.rx_los, Some(true));
        assert_eq!(told.alarms, ["rx power of lane 3 low alarm"]);
    }

    #[test]
    fn a_module_without_further_pages_has_no_thresholds() {
        let (mut lower, upper, _) = module();
        lower[2] = 0x04;
        assert!(!has_pages(&lower));
        assert_eq!(decode(&lower, &upper, None).rx_alarm_dbm, None);
        lower[2] = NOT_READY;
        assert_eq!(decode(&lower, &upper, None).rx_power_dbm, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_bounded_alarms(bytes in prop::collection::vec(any::<u8>(), 384)) {
            let page = |n: usize| -> &Page { bytes[n * 128..(n + 1) * 128].try_into().unwrap() };
            let told = decode(page(0), page(1), Some(page(2)));
            prop_assert!(told.alarms.len() <= 56);
            prop_assert!(told.rx_power_dbm.is_none_or(f32::is_finite));
        }
    }
}
