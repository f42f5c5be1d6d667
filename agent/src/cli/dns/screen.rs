//! How answers look on a terminal and as JSON.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::compare::{Difference, label};
use super::plan::{Plan, Target};
use super::survey::Told;
use crate::probe::dns::{Failure, Record, Reply, Transport, rcode_name};

impl Target {
    /// The transport's name, for people.
    pub(super) fn way(&self) -> &'static str {
        match self.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Https(_) => "HTTPS",
        }
    }
}

/// A table, then the differences.
pub(super) fn write(
    out: &mut impl Write,
    told: &[Told],
    differences: &[Difference],
) -> io::Result<()> {
    let mut rows: Vec<[String; COLUMNS]> =
        vec![["SERVER", "VIA", "CODE", "TIME", "TTL", "FLAGS", "ANSWER"].map(str::to_owned)];
    let mut notes = Vec::new();
    for told in told {
        rows.extend(rows_of(told));
        notes.extend(notes_of(told));
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end())?;
    }
    if !notes.is_empty() || !differences.is_empty() || told.iter().any(|t| !t.target.configured) {
        writeln!(out)?;
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    if told.iter().any(|t| !t.target.configured) {
        writeln!(out, "note: * is not in this device's resolv.conf")?;
    }
    for difference in differences {
        writeln!(out, "! {}", difference.text)?;
    }
    Ok(())
}

fn rows_of(told: &Told) -> Vec<[String; COLUMNS]> {
    let server = told.target.server.to_string();
    let configured = if told.target.configured { "" } else { " *" };
    let mut first = [
        server + configured,
        told.target.way().to_owned(),
        String::new(),
        told.median().map(time).unwrap_or_default(),
        String::new(),
        String::new(),
        String::new(),
    ];
    let reply = match &told.ended {
        Ok(reply) => reply,
        Err(failure) => {
            first[2] = "-".to_owned();
            first[6] = failure.to_string();
            return vec![first];
        }
    };
    first[2] = rcode_name(reply.message.rcode);
    first[5] = reply.message.flags.names().join(" ");
    let mut answers = reply.message.answers.iter();
    if let Some(record) = answers.next() {
        [first[4], first[6]] = [record.ttl.to_string(), shown(record)];
    }
    let mut rows = vec![first];
    for record in answers.by_ref().take(MAX_SHOWN) {
        let mut row: [String; COLUMNS] = Default::default();
        [row[4], row[6]] = [record.ttl.to_string(), shown(record)];
        rows.push(row);
    }
    let more = answers.count();
    if more > 0 {
        let mut row: [String; COLUMNS] = Default::default();
        row[6] = format!("and {more} more");
        rows.push(row);
    }
    rows
}

fn shown(record: &Record) -> String {
    let data = record.data.to_string();
    let cut: String = data.chars().take(MAX_DATA).collect();
    let dots = if cut.len() < data.len() { "…" } else { "" };
    format!("{} {cut}{dots}", record.kind)
}

fn notes_of(told: &Told) -> Vec<String> {
    let who = label(told);
    let mut notes = Vec::new();
    if told.cut {
        notes.push(format!(
            "{who}: the answer was cut, the whole came over TCP"
        ));
    }
    if told.verified == Some(false) {
        notes.push(format!(
            "{who}: encrypted, but nobody knows with whom: give its name as @ADDRESS#NAME"
        ));
    }
    if told.setup > Duration::ZERO {
        notes.push(format!(
            "{who}: opening the connection took {}",
            time(told.setup)
        ));
    }
    let edns = told
        .ended
        .as_ref()
        .ok()
        .and_then(|reply| reply.message.edns.as_ref());
    for error in edns.iter().flat_map(|edns| &edns.errors) {
        let name = error.name().unwrap_or("unknown");
        notes.push(
            format!("{who} adds error {} ({name}) {}", error.code, error.text)
                .trim_end()
                .to_owned(),
        );
    }
    notes
}

fn time(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// `{question, servers, differences, alike}`.
pub(super) fn object(plan: &Plan, told: &[Told], differences: &[Difference]) -> Value {
    json!({
        "name": plan.question.name.to_string(),
        "type": plan.question.kind.to_string(),
        "servers": told.iter().map(server).collect::<Vec<_>>(),
        "differences": differences,
        "alike": differences.is_empty(),
    })
}

fn server(told: &Told) -> Value {
    let target = &told.target;
    let mut object = json!({
        "server": target.server.address,
        "port": target.server.socket(&target.transport).port(),
        "server_name": target.server.name,
        "configured": target.configured,
        "transport": target.transport.kind(),
        "verified": told.verified,
        "setup_us": micros(told.setup),
        "asked": told.asked,
        "rtt_us": told.rtts.iter().copied().map(micros).collect::<Vec<_>>(),
        "cut": told.cut,
        "answer": answer(&told.ended),
    });
    if let Some(unvalidated) = &told.unvalidated {
        object["unvalidated"] = answer(unvalidated);
    }
    if let Some((name, ended)) = &told.absent {
        object["nonexistent"] = answer(ended);
        object["nonexistent"]["name"] = json!(name);
    }
    object
}

fn answer(ended: &Result<Reply, Failure>) -> Value {
    let message = match ended {
        Ok(reply) => &reply.message,
        Err(failure) => return json!({ "failure": failure.answer(), "error": failure.to_string() }),
    };
    let record = |record: &Record| {
        json!({
            "name": record.name.to_string(),
            "type": record.kind.to_string(),
            "ttl": record.ttl,
            "data": record.data.to_string(),
        })
    };
    let errors = message.edns.iter().flat_map(|edns| &edns.errors);
    json!({
        "rcode": rcode_name(message.rcode),
        "flags": message.flags.names(),
        "records": message.answers.iter().map(record).collect::<Vec<_>>(),
        "authority": message.authority.iter().map(record).collect::<Vec<_>>(),
        "errors": errors.map(|e| json!({ "code": e.code, "name": e.name(), "text": e.text })).collect::<Vec<_>>(),
    })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

const COLUMNS: usize = 7;
const MAX_SHOWN: usize = 15;
const MAX_DATA: usize = 200;
