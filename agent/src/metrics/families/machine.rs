//! The machine and its services.

use aizen_protocol::record::{
    ConfigFile, CpuTimes, Host, LogLine, Pressure, Service, ServiceState, Stall,
};

use super::leases::seconds;
use super::{Kind, Labels, Made, count, cpu, float};

impl Made {
    pub(super) fn log(&mut self, lines: &[LogLine]) {
        let severities = count(lines.iter().map(|line| line.severity));
        let samples = severities
            .into_iter()
            .map(|(severity, lines)| (vec![("severity", severity.to_string().into())], lines));
        self.gauge(
            "aizen_log_lines",
            "Recent lines of log that concern the network, by severity (RFC 5424).",
            samples,
        );
    }

    pub(super) fn configuration(&mut self, files: &[ConfigFile]) {
        let changed = files.iter().map(|file| {
            let labels: Labels = vec![("path", file.path.0.clone().into())];
            (labels, seconds(file.modified))
        });
        self.gauge(
            "aizen_configuration_changed_timestamp_seconds",
            "When a file of network configuration was changed last.",
            changed,
        );
    }

    pub(super) fn cpu(&mut self, cpus: &[CpuTimes]) {
        let kinds = |c: &CpuTimes| {
            [
                ("user", c.user_ms),
                ("nice", c.nice_ms),
                ("system", c.system_ms),
                ("idle", c.idle_ms),
                ("iowait", c.iowait_ms),
                ("irq", c.irq_ms),
                ("softirq", c.softirq_ms),
                ("steal", c.steal_ms),
            ]
        };
        let samples = cpus.iter().flat_map(|c| {
            kinds(c).map(|(kind, ms)| {
                let mut labels = cpu(c.cpu);
                labels.push(("mode", kind.into()));
                (labels, float(ms) / 1000.0)
            })
        });
        self.family(
            "aizen_cpu_seconds_total",
            Kind::Counter,
            "Time that processors spent, by kind.",
            samples,
        );
    }

    pub(super) fn pressure(&mut self, pressure: &Pressure) {
        let stalls = [
            ("cpu", "some", pressure.cpu),
            ("memory", "some", pressure.memory_some),
            ("memory", "full", pressure.memory_full),
            ("io", "some", pressure.io_some),
            ("io", "full", pressure.io_full),
        ];
        let samples = stalls.into_iter().filter_map(|(resource, share, stall)| {
            let labels = vec![("resource", resource.into()), ("share", share.into())];
            stall.map(|stall: Stall| (labels, float(stall.total_us) / 1e6))
        });
        self.family(
            "aizen_pressure_waiting_seconds_total",
            Kind::Counter,
            "Time in which some or all tasks waited for a resource.",
            samples,
        );
    }

    pub(super) fn host(&mut self, host: &Host) {
        let one = |value: f64| [(Labels::new(), value)];
        self.gauge(
            "aizen_uptime_seconds",
            "Time since boot.",
            one(float(host.uptime_s)),
        );
        self.gauge(
            "aizen_load1",
            "Load over one minute.",
            one(host.load[0].into()),
        );
        self.gauge(
            "aizen_memory_total_bytes",
            "Memory.",
            one(float(host.memory_total_bytes)),
        );
        self.gauge(
            "aizen_memory_available_bytes",
            "Memory that programs can have without swapping.",
            one(float(host.memory_available_bytes)),
        );
        let oom = host.oom_kills.map(|kills| (Labels::new(), kills));
        self.counter(
            "aizen_oom_kills_total",
            "Processes killed for want of memory.",
            oom,
        );
        let celsius = host.temperature_c.map(|c| (Labels::new(), f64::from(c)));
        self.gauge("aizen_temperature_celsius", "The hottest sensor.", celsius);
        let disk = |mount: &aizen_protocol::private::Text| vec![("mount", mount.0.clone().into())];
        self.gauge(
            "aizen_disk_size_bytes",
            "Size of a file system.",
            host.disks
                .iter()
                .map(|d| (disk(&d.mount), float(d.total_bytes))),
        );
        self.gauge(
            "aizen_disk_available_bytes",
            "Space for unprivileged users.",
            host.disks
                .iter()
                .map(|d| (disk(&d.mount), float(d.available_bytes))),
        );
        self.gauge(
            "aizen_disk_read_only",
            "1 if the file system is mounted read-only.",
            host.disks
                .iter()
                .map(|d| (disk(&d.mount), f64::from(u8::from(d.read_only)))),
        );
    }

    pub(super) fn services(&mut self, services: &[Service]) {
        let of = |s: &Service| -> Labels { vec![("service", s.name.clone().into())] };
        self.gauge(
            "aizen_service_failed",
            "1 if the service failed.",
            services
                .iter()
                .map(|s| (of(s), f64::from(u8::from(s.state == ServiceState::Failed)))),
        );
        self.counter(
            "aizen_service_restarts_total",
            "Times its manager started the service again.",
            services
                .iter()
                .filter_map(|s| Some((of(s), u64::from(s.restarts?)))),
        );
    }
}
