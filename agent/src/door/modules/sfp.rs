//! SFP and SFP+ (SFF-8472): identity at A0h, diagnostics at A2h.

use aizen_protocol::record::Module;

use super::{Page, dbm, part, word};

/// The module measures itself, and without an address change that the kernel doesn't do (byte 92).
pub(crate) fn is_watched(identity: &Page) -> bool {
    identity[92] & 0x40 != 0 && identity[92] & 0x04 == 0
}

/// Decodes both pages; without the second, identity alone.
pub(crate) fn decode(identity: &Page, diagnostics: Option<&Page>) -> Module {
    let module = Module {
        part: part(&identity[20..36], &identity[40..56]),
        ..Module::default()
    };
    let Some(page) = diagnostics else {
        return module;
    };
    let status = page[110];
    if status & NOT_READY != 0 {
        return module;
    }
    let calibration = if identity[92] & EXTERNALLY_CALIBRATED != 0 {
        Calibration::of(page)
    } else {
        Calibration::NONE
    };
    // Thresholds are compared with calibrated values, so they are calibrated alike (9.6).
    let low = calibration.rx_power(word(page, 34));
    let high = calibration.rx_power(word(page, 32));
    Module {
        temperature_c: Some(calibration.temperature(word(page, 96))),
        voltage_v: Some(calibration.voltage.apply(word(page, 98)) * 1e-4),
        bias_ma: Some(calibration.bias.apply(word(page, 100)) * 2e-3),
        tx_power_dbm: Some(dbm(calibration.tx_power.apply(word(page, 102)))),
        rx_power_dbm: Some(dbm(calibration.rx_power(word(page, 104)))),
        // A module that sets no thresholds has them all zero.
        rx_alarm_dbm: (word(page, 32) > word(page, 34)).then(|| [dbm(low), dbm(high)]),
        rx_los: Some(status & RX_LOS != 0),
        alarms: alarms(page),
        ..module
    }
}

/// Alarm flags at 112 and warning flags at 116.
fn alarms(page: &Page) -> Vec<String> {
    let mut set = Vec::new();
    for (at, severity) in [(112, "alarm"), (116, "warning")] {
        let flags = u16::from_be_bytes([page[at], page[at + 1]]);
        for (place, name) in FLAGS.iter().enumerate() {
            if flags & (0x8000 >> place) != 0 {
                set.push(format!("{name} {severity}"));
            }
        }
    }
    set
}

/// `value = slope * raw + offset` (9.3).
#[derive(Clone, Copy, Debug)]
struct Line {
    slope: f32,
    offset: f32,
}

impl Line {
    const NONE: Self = Self {
        slope: 1.0,
        offset: 0.0,
    };

    /// Slope as fixed-point number of 8.8 bits, offset signed.
    fn of(page: &Page, at: usize) -> Self {
        Self {
            slope: f32::from(word(page, at)) / 256.0,
            offset: f32::from(word(page, at + 2).cast_signed()),
        }
    }

    fn apply(self, raw: u16) -> f32 {
        self.slope * f32::from(raw) + self.offset
    }
}

/// How raw values become values: by the module itself, or by its constants at 56 to 91.
#[derive(Clone, Copy, Debug)]
struct Calibration {
    /// Coefficients of received power, of the fourth power down to the constant.
    rx: [f32; 5],
    bias: Line,
    tx_power: Line,
    temperature: Line,
    voltage: Line,
}

impl Calibration {
    const NONE: Self = Self {
        rx: [0.0, 0.0, 0.0, 1.0, 0.0],
        bias: Line::NONE,
        tx_power: Line::NONE,
        temperature: Line::NONE,
        voltage: Line::NONE,
    };

    fn of(page: &Page) -> Self {
        let coefficient = |at: usize| {
            let bytes = [page[at], page[at + 1], page[at + 2], page[at + 3]];
            // A page that was never written holds what is no number.
            Some(f32::from_be_bytes(bytes))
                .filter(|c| c.is_finite())
                .unwrap_or(0.0)
        };
        Self {
            rx: [56, 60, 64, 68, 72].map(coefficient),
            bias: Line::of(page, 76),
            tx_power: Line::of(page, 80),
            temperature: Line::of(page, 84),
            voltage: Line::of(page, 88),
        }
    }

    fn rx_power(&self, raw: u16) -> f32 {
        let raw = f32::from(raw);
        let power = self.rx.iter().fold(0.0, |sum, c| sum * raw + c);
        // Coefficients of garbage overflow; half a watt is more light than any module takes.
        if power.is_finite() {
            power.clamp(0.0, 5e6)
        } else {
            0.0
        }
    }

    /// Signed, 1/256 °C.
    fn temperature(&self, raw: u16) -> f32 {
        let raw = f32::from(raw.cast_signed());
        (self.temperature.slope * raw + self.temperature.offset) / 256.0
    }
}

const NOT_READY: u8 = 1;
const RX_LOS: u8 = 2;
const EXTERNALLY_CALIBRATED: u8 = 0x10;
/// From the highest bit down (table 9-12).
const FLAGS: [&str; 10] = [
    "temperature high",
    "temperature low",
    "voltage high",
    "voltage low",
    "bias high",
    "bias low",
    "tx power high",
    "tx power low",
    "rx power high",
    "rx power low",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(page: &mut Page, at: usize, words: &[u16]) {
        for (place, word) in words.iter().enumerate() {
            page[at + place * 2..][..2].copy_from_slice(&word.to_be_bytes());
        }
    }

    /// A 1000BASE-LX module, internally calibrated, that receives −25.2 dBm with an alarm below −23.
    fn module() -> (Page, Page) {
        let (mut identity, mut page) = ([0; 128], [0; 128]);
        identity[0] = 3;
        identity[20..36].copy_from_slice(b"FINISAR CORP.   ");
        identity[40..56].copy_from_slice(b"FTLF1318P3BTL   ");
        identity[92] = 0x68;
        put(
            &mut page,
            0,
            &[0x5f00, 0xd800, 0x5a00, 0xdd00, 36300, 29700, 34650, 31350],
        );
        put(&mut page, 32, &[10_000, 50, 7943, 100]);
        put(&mut page, 96, &[0x2380, 32_950, 6000, 2500, 30]);
        page[110] = 0x02;
        page[113] = 0x40;
        page[117] = 0x40;
        (identity, page)
    }

    fn near(told: Option<f32>, wanted: f32) -> bool {
        told.is_some_and(|told| (told - wanted).abs() < 0.02)
    }

    #[test]
    fn a_module_in_the_dark_says_so() {
        let (identity, page) = module();
        assert!(is_watched(&identity));
        let told = decode(&identity, Some(&page));
        assert_eq!(told.part.0, "FINISAR CORP. FTLF1318P3BTL");
        assert!(near(told.temperature_c, 35.5) && near(told.voltage_v, 3.295));
        assert!(near(told.bias_ma, 12.0) && near(told.tx_power_dbm, -6.02));
        assert!(near(told.rx_power_dbm, -25.23));
        let [low, high] = told.rx_alarm_dbm.unwrap();
        assert!(near(Some(low), -23.01) && near(Some(high), 0.0));
        assert_eq!(told.rx_los, Some(true));
        assert_eq!(told.alarms, ["rx power low alarm", "rx power low warning"]);
    }

    #[test]
    fn a_temperature_below_zero_is_signed() {
        let (identity, mut page) = module();
        put(&mut page, 96, &[0xf680]);
        assert!(near(decode(&identity, Some(&page)).temperature_c, -9.5));
    }

    #[test]
    fn constants_of_the_module_calibrate_it_only_if_it_says_so() {
        let (mut identity, mut page) = module();
        // Slopes of 2 and offsets of 10; received power is 0.5 * raw + 20.
        page[68..72].copy_from_slice(&0.5_f32.to_be_bytes());
        page[72..76].copy_from_slice(&20.0_f32.to_be_bytes());
        put(&mut page, 76, &[512, 10, 512, 10, 512, 10, 512, 10]);
        assert!(near(decode(&identity, Some(&page)).bias_ma, 12.0));
        identity[92] = 0x58;
        let told = decode(&identity, Some(&page));
        assert!(near(told.bias_ma, 24.02));
        assert!(near(told.rx_power_dbm, dbm(35.0)));
        assert!(near(told.temperature_c, 71.04));
    }

    #[test]
    fn a_module_that_is_not_ready_or_measures_nothing_is_known_by_name_alone() {
        let (mut identity, mut page) = module();
        page[110] = NOT_READY;
        assert_eq!(decode(&identity, Some(&page)).rx_power_dbm, None);
        identity[92] = 0;
        assert!(!is_watched(&identity));
        assert_eq!(decode(&identity, None).rx_los, None);
    }

    #[test]
    fn thresholds_that_were_never_set_are_none() {
        let (identity, mut page) = module();
        put(&mut page, 32, &[0, 0]);
        assert_eq!(decode(&identity, Some(&page)).rx_alarm_dbm, None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_numbers_that_json_can_hold(a in prop::collection::vec(any::<u8>(), 256)) {
            let (identity, page) = a.split_at(128);
            let told = decode(identity.try_into().unwrap(), Some(page.try_into().unwrap()));
            let values = [told.temperature_c, told.voltage_v, told.bias_ma, told.tx_power_dbm, told.rx_power_dbm];
            prop_assert!(values.iter().flatten().all(|v| v.is_finite()));
        }
    }
}
