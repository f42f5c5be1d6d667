//! What the hardware of a port says: speed, driver, pluggable module, radio.

use aizen_protocol::record::{Duplex, Ethernet, Module, Radio, Wireless};

use super::{Labels, Made, float};

impl Made {
    pub(super) fn ethernet(&mut self, ports: &[Ethernet]) {
        let mut samples = Vec::new();
        for port in ports {
            for (name, total) in &port.statistics {
                let mut labels = self.link(port.link);
                labels.push(("counter", name.clone().into()));
                samples.push((labels, *total));
            }
        }
        self.counter(
            "aizen_ethernet_driver_total",
            "What the driver counts: the standard's groups, and of its own counters those of trouble that are not 0.",
            samples,
        );
        let speeds: Vec<_> = ports
            .iter()
            .filter_map(|port| {
                Some((
                    self.link(port.link),
                    float(u64::from(port.speed_mbps?)) * 1e6,
                ))
            })
            .collect();
        self.gauge(
            "aizen_ethernet_speed_bits_per_second",
            "Negotiated speed.",
            speeds,
        );
        let duplex: Vec<_> = ports
            .iter()
            .filter_map(|port| {
                Some((
                    self.link(port.link),
                    f64::from(u8::from(port.duplex? == Duplex::Full)),
                ))
            })
            .collect();
        self.gauge(
            "aizen_ethernet_full_duplex",
            "1 if both ends send at once.",
            duplex,
        );
    }

    pub(super) fn modules(&mut self, modules: &[Module]) {
        type Read = fn(&Module) -> Option<f64>;
        let all: [(&'static str, &'static str, Read); 5] = [
            (
                "aizen_module_temperature_celsius",
                "Temperature of a pluggable module.",
                |m| m.temperature_c.map(f64::from),
            ),
            ("aizen_module_voltage_volts", "Its supply.", |m| {
                m.voltage_v.map(f64::from)
            }),
            ("aizen_module_bias_amperes", "Its laser's current.", |m| {
                m.bias_ma.map(|ma| f64::from(ma) / 1000.0)
            }),
            (
                "aizen_module_transmit_power_dbm",
                "Optical power that it sends.",
                |m| m.tx_power_dbm.map(f64::from),
            ),
            (
                "aizen_module_receive_power_dbm",
                "Optical power that it receives.",
                |m| m.rx_power_dbm.map(f64::from),
            ),
        ];
        for (name, help, read) in all {
            let samples: Vec<_> = modules
                .iter()
                .filter_map(|module| Some((self.link(module.link), read(module)?)))
                .collect();
            self.gauge(name, help, samples);
        }
    }

    pub(super) fn wireless(&mut self, radio: &Radio) {
        let stations: Vec<_> = radio
            .interfaces
            .iter()
            .map(|one| {
                let stations = u32::try_from(one.stations.len()).unwrap_or(u32::MAX);
                (self.link(one.link), f64::from(stations))
            })
            .collect();
        self.gauge(
            "aizen_wireless_stations",
            "Stations of a radio interface.",
            stations,
        );
        let weakest = |one: &Wireless| one.stations.iter().filter_map(|s| s.signal_dbm).min();
        let signals: Vec<_> = radio
            .interfaces
            .iter()
            .filter_map(|one| Some((self.link(one.link), f64::from(weakest(one)?))))
            .collect();
        self.gauge(
            "aizen_wireless_weakest_signal_dbm",
            "Signal of the station that is heard worst.",
            signals,
        );
        type Read = fn(&Wireless) -> Option<u64>;
        let survey: [(&'static str, &'static str, Read); 2] = [
            (
                "aizen_wireless_channel_active_seconds_total",
                "Time that the radio listened to its channel.",
                |one| one.active_ms,
            ),
            (
                "aizen_wireless_channel_busy_seconds_total",
                "Time of it in which the channel was busy.",
                |one| one.busy_ms,
            ),
        ];
        for (name, help, read) in survey {
            let samples: Vec<(Labels, f64)> = radio
                .interfaces
                .iter()
                .filter_map(|one| Some((self.link(one.link), float(read(one)?) / 1000.0)))
                .collect();
            self.family(name, super::Kind::Counter, help, samples);
        }
    }
}
