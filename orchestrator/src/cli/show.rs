//! What a server knows, as text for people or as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use aizen_protocol::id::{ApprovalId, CaseId, Digest};
use aizen_protocol::outcome::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::{print, print_json, screen};
use crate::api::cases::Summed;
use crate::api::{approvals, cases, devices};
use crate::audit::Entry;
use crate::store::approvals::ApprovalState;
use crate::store::cases::CaseRow;

pub(super) async fn token(client: &Client, ttl: Duration, json: bool) -> anyhow::Result<()> {
    let body = json!({ "ttl_s": ttl.as_secs() });
    let created: Value = client.post("/tokens", &body).await?;
    if json {
        return print_json(&created);
    }
    // The token alone on standard output: it is pasted into `aizen enroll`.
    print(&format!("{}\n", created["token"].as_str().unwrap_or("")))
}

pub(super) async fn devices(client: &Client, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&client.get::<Value>("/devices").await?);
    }
    let list: devices::List = client.get("/devices").await?;
    let rows: Vec<_> = list.devices.iter().map(device_row).collect();
    print(&screen::table(
        [
            "DEVICE",
            "STATE",
            "HEALTH",
            "CHANGES",
            "ISOLATION",
            "LAST HEARD",
        ],
        &rows,
    ))
}

fn device_row(shown: &devices::Shown) -> [String; 6] {
    let device = &shown.device;
    let health = device
        .verdict
        .as_ref()
        .map_or("-".into(), |v| format!("{:?}", v.health).to_lowercase());
    [
        device.device.to_string(),
        if shown.online { "online" } else { "offline" }.into(),
        health,
        if device.takes_changes {
            "allowed"
        } else {
            "observe only"
        }
        .into(),
        format!("level {}", device.isolation.level),
        screen::time(device.seen_at),
    ]
}

pub(super) async fn cases(client: &Client, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&client.get::<Value>("/cases").await?);
    }
    let list: cases::List = client.get("/cases").await?;
    let rows: Vec<_> = list
        .cases
        .iter()
        .map(|Summed { case, .. }| {
            [
                case.id.to_string(),
                case.device.to_string(),
                screen::visible(&case.cause),
                screen::visible(&case.component),
                case.state.to_string(),
                screen::time(case.opened_at),
            ]
        })
        .collect();
    print(&screen::table(
        ["CASE", "DEVICE", "CAUSE", "COMPONENT", "STATE", "OPENED"],
        &rows,
    ))
}

#[derive(Deserialize)]
struct Story {
    #[serde(flatten)]
    case: CaseRow,
    outcomes: Vec<Outcome>,
    timeline: Vec<Entry>,
}

pub(super) async fn case(client: &Client, id: &CaseId, json: bool) -> anyhow::Result<()> {
    let path = format!("/cases/{id}");
    if json {
        return print_json(&client.get::<Value>(&path).await?);
    }
    let story: Story = client.get(&path).await?;
    print(&told(&story)?)
}

fn told(story: &Story) -> Result<String, std::fmt::Error> {
    let case = &story.case;
    let mut text = format!(
        "{}  {}\n  device {}\n  {} on {}\n  {}\n",
        case.id,
        case.state,
        case.device,
        screen::visible(&case.cause),
        screen::visible(&case.component),
        screen::visible(&case.note),
    );
    if let Some(finding) = &case.finding {
        writeln!(text, "\n{}", screen::visible(&finding.summary.0))?;
        for (label, facts) in [
            ("shown by", &finding.evidence),
            ("against it", &finding.contradictions),
        ] {
            for fact in facts {
                let words = screen::visible(&fact.fact.0);
                writeln!(text, "  {label} {}: {words}", fact.source)?;
            }
        }
        let step = screen::visible(&finding.next_step.0);
        writeln!(text, "  next: {step}")?;
    }
    text.push_str("\nTime line:\n");
    for entry in &story.timeline {
        let detail = screen::visible(&entry.detail);
        writeln!(
            text,
            "  {}  {:18} {detail}",
            screen::time(entry.at),
            entry.event
        )?;
    }
    for outcome in &story.outcomes {
        writeln!(
            text,
            "\nOutcome: {:?} {}",
            outcome.end,
            screen::visible(&outcome.detail.0)
        )?;
        for probe in &outcome.probes {
            let held = |held| if held { "held" } else { "failed" };
            writeln!(
                text,
                "  probe {}: {} before, {} after",
                screen::visible(&probe.probe.0),
                held(probe.before),
                probe.after.map_or("not tried", held)
            )?;
        }
        let same = outcome.state_before.is_some() && outcome.state_before == outcome.state_after;
        writeln!(
            text,
            "  state before {} after",
            if same { "equals" } else { "differs from" }
        )?;
    }
    Ok(text)
}

pub(super) async fn approvals(client: &Client, all: bool, json: bool) -> anyhow::Result<()> {
    let path = if all {
        "/approvals?all=true"
    } else {
        "/approvals"
    };
    if json {
        return print_json(&client.get::<Value>(path).await?);
    }
    let list: approvals::List = client.get(path).await?;
    let rows: Vec<_> = list
        .approvals
        .iter()
        .map(|shown| {
            let approval = &shown.approval;
            let intent = shown.package.as_ref().map_or("", |p| p.intent.as_str());
            [
                approval.id.to_string(),
                approval.state.to_string(),
                format!("{:?}", approval.risk).to_lowercase(),
                approval.device.to_string(),
                screen::visible(intent),
                screen::time(approval.expires_at),
            ]
        })
        .collect();
    print(&screen::table(
        ["APPROVAL", "STATE", "RISK", "DEVICE", "INTENT", "EXPIRES"],
        &rows,
    ))
}

pub(super) async fn approval(client: &Client, id: &ApprovalId, json: bool) -> anyhow::Result<()> {
    let path = format!("/approvals/{id}");
    if json {
        return print_json(&client.get::<Value>(&path).await?);
    }
    let shown: approvals::Shown = client.get(&path).await?;
    print(&question(&shown)?)
}

/// A question with all that a person must know to answer it.
pub(super) fn question(shown: &approvals::Shown) -> Result<String, std::fmt::Error> {
    let approval = &shown.approval;
    let mut text = format!("{}  {}\n", approval.id, approval.state);
    if let Some(package) = &shown.package {
        writeln!(text, "  intent:  {}", screen::visible(&package.intent))?;
        writeln!(
            text,
            "  class:   {}",
            format!("{:?}", package.manifest.class).to_lowercase()
        )?;
    }
    let risk = format!("{:?}", approval.risk).to_lowercase();
    writeln!(text, "  risk:    {risk}")?;
    writeln!(text, "  device:  {}", approval.device)?;
    writeln!(text, "  case:    {}", approval.case)?;
    writeln!(text, "  package: sha256 {}", approval.digest)?;
    writeln!(text, "  expires: {}", screen::time(approval.expires_at))?;
    if approval.needed > 1 {
        writeln!(text, "  needs:   {} people", approval.needed)?;
    }
    if approval.state != ApprovalState::Pending {
        writeln!(
            text,
            "  decided: {} {}",
            screen::visible(&approval.decided_by),
            screen::visible(&approval.reason)
        )?;
    }
    writeln!(text)?;
    text.push_str(&screen::effect(&approval.effect));
    if let Some(script) = &shown.script {
        text.push_str("Script:\n");
        for line in screen::visible(script).lines() {
            writeln!(text, "    {line}")?;
        }
    }
    Ok(text)
}

pub(super) async fn audit_verify(
    client: &Client,
    head: Option<Digest>,
    json: bool,
) -> anyhow::Result<()> {
    let query = head.map_or(String::new(), |head| format!("?head={head}"));
    let found: Value = client.get(&format!("/audit/verify{query}")).await?;
    if json {
        print_json(&found)?;
    } else {
        print(&format!(
            "{} entries hang together, head {}\n",
            found["entries"],
            found["head"].as_str().unwrap_or("")
        ))?;
    }
    if found["intact"] == json!(true) {
        return Ok(());
    }
    let message = match found["broken_at"].as_i64() {
        Some(place) => format!("entry {place} was altered, dropped or swapped"),
        None => "the given head is not part of the chain: its end was cut off".into(),
    };
    Err(Failure::Refused {
        code: "audit_broken".into(),
        message,
    }
    .into())
}

pub(super) async fn audit(client: &Client, after: i64, json: bool) -> anyhow::Result<()> {
    let page: Value = client.get(&format!("/audit?after={after}")).await?;
    if json {
        return print_json(&page);
    }
    let entries: Vec<Entry> = serde_json::from_value(page["entries"].clone())?;
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            [
                entry.n.to_string(),
                screen::time(entry.at),
                entry.event.clone(),
                entry.device.clone().unwrap_or_default(),
                screen::visible(&entry.detail),
            ]
        })
        .collect();
    print(&screen::table(
        ["N", "AT", "WHAT", "DEVICE", "DETAIL"],
        &rows,
    ))
}
