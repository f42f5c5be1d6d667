//! `aizen perf`.

use std::io::{self, Write};

use aizen_protocol::record::{CpuTimes, Disk, Host, Pressure, Softnet, Stall};
use serde::Serialize;
use serde_json::{Value, json};

use super::sample::{Sample, as_float};
use crate::cli::screen::{Align, Colour, Screen, Table, bytes, duration};

/// Shares of one processor's time, percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Shares {
    cpu: u16,
    user: f64,
    system: f64,
    iowait: f64,
    irq: f64,
    softirq: f64,
    steal: f64,
    idle: f64,
}

pub(super) fn write(
    out: &mut impl Write,
    before: Option<&Sample>,
    now: &Sample,
    screen: &Screen,
) -> io::Result<()> {
    if let Some(host) = &now.host {
        write_host(out, host, screen)?;
    }
    let shares = before.map_or_else(Vec::new, |before| shares(&before.cpu, &now.cpu));
    if !shares.is_empty() {
        writeln!(out)?;
        write_shares(out, &shares, screen)?;
    }
    if let Some(pressure) = &now.pressure {
        write_pressure(out, pressure)?;
    }
    write_network(out, before, now)?;
    match &now.host {
        Some(host) if !host.disks.is_empty() => {
            writeln!(out)?;
            disks(now).write(out, screen)
        }
        _ => Ok(()),
    }
}

fn write_host(out: &mut impl Write, host: &Host, screen: &Screen) -> io::Result<()> {
    let title = |text: &str| screen.paint(Colour::Bold, &format!("{text:<12}"));
    let [one, five, fifteen] = host.load;
    writeln!(out, "{}{}", title("Up"), duration(host.uptime_s))?;
    writeln!(
        out,
        "{}{one:.2} {five:.2} {fifteen:.2} over 1, 5, 15 min on {} processors",
        title("Load"),
        host.cpus
    )?;
    writeln!(
        out,
        "{}{} of {} available, swap {} of {} free, {} killed for want of it since boot",
        title("Memory"),
        bytes(host.memory_available_bytes),
        bytes(host.memory_total_bytes),
        bytes(host.swap_free_bytes),
        bytes(host.swap_total_bytes),
        host.oom_kills
            .map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
    )?;
    if let Some(celsius) = host.temperature_c {
        let limit = host.throttle_c.map_or_else(String::new, |limit| {
            format!(", slows down at {limit:.0} °C")
        });
        writeln!(out, "{}{celsius:.1} °C{limit}", title("Temperature"))?;
    }
    if host.undervoltage == Some(true) {
        writeln!(out, "{}too low since boot", title("Supply"))?;
    }
    if let Some(reason) = &host.reset_reason {
        writeln!(out, "{}{reason}", title("Last reset"))?;
    }
    Ok(())
}

fn write_shares(out: &mut impl Write, shares: &[Shares], screen: &Screen) -> io::Result<()> {
    let mut table = Table::new(&[
        ("CPU", Align::Left),
        ("USER", Align::Right),
        ("SYSTEM", Align::Right),
        ("IOWAIT", Align::Right),
        ("IRQ", Align::Right),
        ("SOFTIRQ", Align::Right),
        ("STEAL", Align::Right),
        ("IDLE", Align::Right),
    ]);
    for s in shares {
        let mut row = vec![s.cpu.to_string()];
        let kinds = [
            s.user, s.system, s.iowait, s.irq, s.softirq, s.steal, s.idle,
        ];
        row.extend(kinds.map(|share| format!("{share:.1} %")));
        table.row(row);
    }
    table.write(out, screen)
}

fn write_pressure(out: &mut impl Write, pressure: &Pressure) -> io::Result<()> {
    let share = |stall: Option<Stall>| {
        stall.map_or_else(|| "-".to_owned(), |stall| format!("{:.1} %", stall.avg10))
    };
    writeln!(
        out,
        "\nWaiting in the last 10 s: for a processor {}, for memory {} (all tasks {}), for disks {} (all tasks {})",
        share(pressure.cpu),
        share(pressure.memory_some),
        share(pressure.memory_full),
        share(pressure.io_some),
        share(pressure.io_full),
    )
}

fn write_network(out: &mut impl Write, before: Option<&Sample>, now: &Sample) -> io::Result<()> {
    if let Some(conntrack) = &now.conntrack {
        writeln!(
            out,
            "Connections tracked: {} of {}, {} dropped, {} not inserted",
            conntrack.count, conntrack.max, conntrack.drop, conntrack.insert_failed
        )?;
    }
    if !now.softnet.is_empty() {
        let sum = |field: fn(&Softnet) -> u32| -> u64 {
            now.softnet.iter().map(|cpu| u64::from(field(cpu))).sum()
        };
        writeln!(
            out,
            "Packets: {} processed, {} dropped in the backlog, {} times out of budget",
            sum(|cpu| cpu.processed),
            sum(|cpu| cpu.dropped),
            sum(|cpu| cpu.squeezed)
        )?;
    }
    let Some(protocols) = &now.protocols else {
        return Ok(());
    };
    let total = |name: &str| protocols.counters.get(name).copied();
    let grown = |name: &str| {
        let was = before?.protocols.as_ref()?.counters.get(name)?;
        total(name)?.checked_sub(*was)
    };
    if let (Some(sent), Some(again)) = (grown("Tcp.OutSegs"), grown("Tcp.RetransSegs")) {
        let share = if sent == 0 {
            0.0
        } else {
            as_float(again) * 100.0 / as_float(sent)
        };
        writeln!(
            out,
            "TCP: {sent} segments sent, {again} again ({share:.1} %)"
        )?;
    }
    let states: Vec<String> = protocols
        .tcp_states
        .iter()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if states.is_empty() {
        return Ok(());
    }
    writeln!(out, "TCP sockets: {}", states.join(", "))
}

pub(super) fn disks(now: &Sample) -> Table {
    let disks: &[Disk] = now.host.as_ref().map_or(&[], |host| &host.disks);
    let mut table = Table::new(&[
        ("DISK", Align::Left),
        ("TYPE", Align::Left),
        ("SIZE", Align::Right),
        ("FREE", Align::Right),
        ("INODES FREE", Align::Right),
        ("NOTES", Align::Left),
    ]);
    for disk in disks {
        let mut notes = Vec::new();
        if disk.read_only {
            notes.push("read-only".to_owned());
        }
        if let Some(errors) = disk.errors.filter(|errors| *errors > 0) {
            notes.push(format!("{errors} errors"));
        }
        table.row(vec![
            disk.mount.0.clone(),
            disk.fs.clone(),
            bytes(disk.total_bytes),
            format!(
                "{} ({:.0} %)",
                bytes(disk.available_bytes),
                percent(disk.available_bytes, disk.total_bytes)
            ),
            if disk.inodes == 0 {
                "-".to_owned()
            } else {
                format!("{:.0} %", percent(disk.inodes_free, disk.inodes))
            },
            notes.join(", "),
        ]);
    }
    table
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        as_float(part) * 100.0 / as_float(whole)
    }
}

/// Processors that both readings know, and that spent any time between them.
fn shares(before: &[CpuTimes], now: &[CpuTimes]) -> Vec<Shares> {
    let of = |times: &CpuTimes| -> Option<Shares> {
        let was = before.iter().find(|was| was.cpu == times.cpu)?;
        // Some kernels let iowait run backwards.
        let grown = |field: fn(&CpuTimes) -> u64| as_float(field(times).saturating_sub(field(was)));
        let user = grown(|t| t.user_ms) + grown(|t| t.nice_ms);
        let (system, idle) = (grown(|t| t.system_ms), grown(|t| t.idle_ms));
        let (iowait, irq) = (grown(|t| t.iowait_ms), grown(|t| t.irq_ms));
        let (softirq, steal) = (grown(|t| t.softirq_ms), grown(|t| t.steal_ms));
        let all = user + system + idle + iowait + irq + softirq + steal;
        let share = |time: f64| time * 100.0 / all;
        (all > 0.0).then(|| Shares {
            cpu: times.cpu,
            user: share(user),
            system: share(system),
            iowait: share(iowait),
            irq: share(irq),
            softirq: share(softirq),
            steal: share(steal),
            idle: share(idle),
        })
    };
    now.iter().filter_map(of).collect()
}

pub(super) fn json(before: Option<&Sample>, now: &Sample) -> Value {
    json!({
        "host": now.host,
        "cpu": now.cpu,
        "cpu_percent": before.map_or_else(Vec::new, |before| shares(&before.cpu, &now.cpu)),
        "pressure": now.pressure,
        "softnet": now.softnet,
        "conntrack": now.conntrack,
        "protocols": now.protocols,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole_and_a_processor_that_came_is_left_out() {
        let before = [CpuTimes {
            cpu: 0,
            user_ms: 1000,
            iowait_ms: 50,
            idle_ms: 9000,
            ..CpuTimes::default()
        }];
        let now = [
            CpuTimes {
                cpu: 0,
                user_ms: 1250,
                // It ran backwards.
                iowait_ms: 40,
                idle_ms: 9750,
                ..CpuTimes::default()
            },
            CpuTimes {
                cpu: 1,
                user_ms: 5,
                ..CpuTimes::default()
            },
        ];
        let shares = shares(&before, &now);
        assert_eq!(shares.len(), 1);
        let Shares {
            user, idle, iowait, ..
        } = shares[0];
        assert!((user - 25.0).abs() < 1e-9 && (idle - 75.0).abs() < 1e-9);
        assert!(iowait.abs() < 1e-9);
    }

    #[test]
    fn an_empty_disk_of_no_size_is_no_division_by_zero() {
        assert!(percent(0, 0).abs() < f64::EPSILON);
    }
}
