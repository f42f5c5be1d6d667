//! Temperature, clock frequency and supply voltage, from `/sys` (Documentation/ABI/testing/sysfs-class-thermal,
//! sysfs-class-hwmon, Documentation/admin-guide/pm/cpufreq.rst).

use std::path::{Path, PathBuf};

use super::file;

/// What sensors of temperature say, in degrees Celsius.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Thermal {
    /// The hottest sensor of all.
    pub(super) hottest_c: Option<f32>,
    /// Where the hottest thermal zone slows down or stops.
    pub(super) throttle_c: Option<f32>,
}

/// Reads `/sys/class/thermal` and `/sys/class/hwmon`.
pub(super) fn thermal(root: &Path) -> Thermal {
    let zones = file::entries(&root.join("sys/class/thermal"), MAX_SENSORS);
    let hottest_zone = zones
        .iter()
        .filter_map(|zone| Some((thousandths(&zone.join("temp"))?, zone)))
        .max();
    let hottest_chip = chip_files(root, |name| {
        name.starts_with("temp") && name.ends_with("_input")
    })
    .filter_map(|path| thousandths(&path))
    .max();
    let zone = hottest_zone.as_ref().map(|(temperature, _)| *temperature);
    Thermal {
        hottest_c: zone.max(hottest_chip).and_then(degrees),
        throttle_c: hottest_zone
            .and_then(|(_, zone)| throttle(zone))
            .and_then(degrees),
    }
}

/// The lowest trip point that slows or stops the device.
fn throttle(zone: &Path) -> Option<i32> {
    (0..MAX_TRIPS)
        .map_while(|trip| {
            let kind: String = file::word(&zone.join(format!("trip_point_{trip}_type")))?;
            Some((trip, kind))
        })
        .filter(|(_, kind)| matches!(kind.as_str(), "hot" | "passive" | "critical"))
        .filter_map(|(trip, _)| thousandths(&zone.join(format!("trip_point_{trip}_temp"))))
        // Trip points that are switched off stand at or below zero.
        .filter(|temperature| *temperature > 0)
        .min()
}

/// Present clock of the slowest group of processors in percent of its highest.
pub(super) fn frequency_percent(root: &Path) -> Option<f32> {
    file::entries(&root.join("sys/devices/system/cpu/cpufreq"), MAX_SENSORS)
        .iter()
        .filter_map(|policy| {
            let present: u32 = file::word(&policy.join("scaling_cur_freq"))?;
            let highest: u32 = file::word(&policy.join("cpuinfo_max_freq"))?;
            // Tenths of a percent: 16 bits convert without loss.
            let tenths = u64::from(present) * 1000 / u64::from(Some(highest).filter(|h| *h > 0)?);
            u16::try_from(tenths).ok()
        })
        .min()
        .map(|tenths| f32::from(tenths) / 10.0)
}

/// True if a supply fell below its limit; none without such a sensor.
pub(super) fn undervoltage(root: &Path) -> Option<bool> {
    chip_files(root, |name| {
        name.starts_with("in") && name.ends_with("_lcrit_alarm")
    })
    .filter_map(|path| file::word::<u8>(&path))
    .map(|alarm| alarm != 0)
    .max()
}

fn chip_files(root: &Path, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = PathBuf> {
    file::entries(&root.join("sys/class/hwmon"), MAX_SENSORS)
        .into_iter()
        .flat_map(|chip| file::entries(&chip, MAX_SENSOR_FILES))
        .filter(move |path| wanted(file::name(path)))
}

fn thousandths(path: &Path) -> Option<i32> {
    file::word(path).filter(|temperature| PLAUSIBLE.contains(temperature))
}

fn degrees(thousandths: i32) -> Option<f32> {
    let tenths = i16::try_from(thousandths / 100).ok()?;
    Some(f32::from(tenths) / 10.0)
}

const MAX_SENSORS: usize = 64;
const MAX_SENSOR_FILES: usize = 256;
/// The kernel's own bound is 12 (`THERMAL_MAX_TRIPS`); newer ones have none.
const MAX_TRIPS: usize = 32;
/// Sensors without hardware behind them read -273 or 255 degrees.
const PLAUSIBLE: std::ops::Range<i32> = -60_000..200_000;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_hottest_zone_says_where_it_throttles() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (path, text) in [
            ("thermal_zone0/temp", "45500\n"),
            ("thermal_zone0/trip_point_0_type", "passive\n"),
            ("thermal_zone0/trip_point_0_temp", "50000\n"),
            ("thermal_zone1/temp", "71200\n"),
            ("thermal_zone1/trip_point_0_type", "active\n"),
            ("thermal_zone1/trip_point_0_temp", "40000\n"),
            ("thermal_zone1/trip_point_1_type", "critical\n"),
            ("thermal_zone1/trip_point_1_temp", "110000\n"),
            ("thermal_zone1/trip_point_2_type", "passive\n"),
            ("thermal_zone1/trip_point_2_temp", "80000\n"),
            ("thermal_zone1/trip_point_3_type", "hot\n"),
            ("thermal_zone1/trip_point_3_temp", "-274000\n"),
        ] {
            write(root, &format!("sys/class/thermal/{path}"), text);
        }
        let want = |hottest_c, throttle_c| Thermal {
            hottest_c,
            throttle_c,
        };
        assert_eq!(thermal(root), want(Some(71.2), Some(80.0)));
        write(root, "sys/class/hwmon/hwmon0/temp1_input", "85000\n");
        write(root, "sys/class/hwmon/hwmon0/temp2_input", "255000\n");
        assert_eq!(thermal(root), want(Some(85.0), Some(80.0)));
        assert_eq!(thermal(&root.join("none")), Thermal::default());
    }

    #[test]
    fn the_slowest_processor_counts() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(frequency_percent(root.path()), None);
        for (policy, present, highest) in [(0, 1_500_000, 1_500_000), (4, 600_000, 2_400_000)] {
            let folder = format!("sys/devices/system/cpu/cpufreq/policy{policy}");
            write(
                root.path(),
                &format!("{folder}/scaling_cur_freq"),
                &present.to_string(),
            );
            write(
                root.path(),
                &format!("{folder}/cpuinfo_max_freq"),
                &highest.to_string(),
            );
        }
        assert_eq!(frequency_percent(root.path()), Some(25.0));
    }

    #[test]
    fn a_supply_that_fell_too_low_is_told_if_anything_measures_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(undervoltage(root.path()), None);
        let alarm = "sys/class/hwmon/hwmon1/in0_lcrit_alarm";
        write(root.path(), alarm, "0\n");
        assert_eq!(undervoltage(root.path()), Some(false));
        write(root.path(), alarm, "1\n");
        assert_eq!(undervoltage(root.path()), Some(true));
    }
}
