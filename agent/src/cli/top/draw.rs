//! The screen, from the state alone.

use aizen_protocol::finding::{Confidence, Health, Severity, Verdict};
use aizen_protocol::record::Link;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table, Wrap};

use super::state::{Curve, Probe, State};
use crate::cli::screen::{bit_rate, plain};

/// Draws everything that fits; a screen that is too small shows the most important part of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let links = state.now.as_ref().map_or(0, |now| now.links.len());
    // A frame around each, and a head above the probes; half the screen at most.
    let rows = (links + 2).max(state.probes.len() + 3);
    let half = frame.area().height / 2;
    let [head, middle, findings, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(rows).unwrap_or(half).min(half)),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(head_line(state), head);
    if middle.width >= SIDE_BY_SIDE {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)])
                .areas(middle);
        draw_links(frame, state, left);
        draw_probes(frame, &state.probes, right);
    } else {
        draw_links(frame, state, middle);
    }
    draw_findings(frame, state, findings);
    let paused = if state.paused { "PAUSED  " } else { "" };
    frame.render_widget(
        Line::from(format!("{paused}q quit  p pause  ↑↓ scroll  ? help")).dim(),
        foot,
    );
    if state.help {
        draw_help(frame);
    }
}

fn head_line(state: &State) -> Line<'static> {
    let health = match state.verdict.as_ref().map(|verdict| verdict.health) {
        None => "looking …".bold(),
        Some(Health::Healthy) => "HEALTHY".green().bold(),
        Some(Health::Warning) => "WARNING".yellow().bold(),
        Some(Health::Critical) => "CRITICAL".red().bold(),
        Some(Health::Unknown) => "COULD NOT TELL".yellow().bold(),
    };
    let mut spans = vec![Span::raw("aizen  "), health];
    if let Some(now) = &state.now {
        spans.push(Span::raw(format!("  {}", now.at.strftime("%H:%M:%S UTC"))));
        if let Some(host) = &now.host {
            let cpu = host.cpu_percent.unwrap_or_default();
            let [load, ..] = host.load;
            spans.push(Span::raw(format!("  cpu {cpu:.0} %  load {load:.2}")));
        }
    }
    Line::from(spans)
}

fn draw_links(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let block = Block::bordered().title("Links");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let Some(now) = &state.now else {
        return;
    };
    // What carries traffic or should comes first; loopback last.
    let mut links: Vec<&Link> = now.links.iter().collect();
    links.sort_by_key(|link| (link.loopback, !link.admin_up, link.carrier != Some(true)));
    let quiet = Curve::default();
    for (row, link) in links.iter().enumerate() {
        let Some(line) = line_of(inside, row) else {
            return;
        };
        let [name, rx, rx_curve, tx, tx_curve] = Layout::horizontal([
            Constraint::Length(16),
            Constraint::Length(11),
            Constraint::Fill(1),
            Constraint::Length(11),
            Constraint::Fill(1),
        ])
        .spacing(1)
        .areas(line);
        let curve = state.curves.get(&link.index).unwrap_or(&quiet);
        let rates = state.rates.get(&link.index);
        frame.render_widget(link_name(link), name);
        for (area, word, rate) in [
            (rx, "↓", rates.map(|r| r.rx_bits)),
            (tx, "↑", rates.map(|r| r.tx_bits)),
        ] {
            let rate = rate.map_or_else(|| "-".to_owned(), bit_rate);
            frame.render_widget(Line::from(format!("{word}{rate:>10}")), area);
        }
        for (area, points) in [(rx_curve, &curve.rx), (tx_curve, &curve.tx)] {
            let shown = points.len().saturating_sub(area.width.into());
            let points = points.iter().skip(shown).copied();
            frame.render_widget(Sparkline::default().data(points), area);
        }
    }
}

fn link_name(link: &Link) -> Span<'_> {
    match (link.admin_up, link.carrier) {
        (false, _) => Span::styled(format!("{} (down)", link.name), Style::new().dim()),
        (true, Some(false)) => Span::styled(
            format!("{} no carrier", link.name),
            Style::new().fg(Color::Red),
        ),
        (true, _) => Span::raw(&link.name),
    }
}

fn line_of(area: Rect, row: usize) -> Option<Rect> {
    let row = u16::try_from(row).ok().filter(|row| *row < area.height)?;
    Some(Rect {
        y: area.y + row,
        height: 1,
        ..area
    })
}

fn draw_probes(frame: &mut Frame<'_>, probes: &[Probe], area: Rect) {
    let rows = probes.iter().map(|probe| {
        let lost = probe.sent.saturating_sub(probe.answered);
        let time = probe.median_us.map_or_else(
            || "-".to_owned(),
            |us| format!("{:.1} ms", f64::from(us) / 1000.0),
        );
        let row = Row::new([probe.what.clone(), time, format!("{lost}/{}", probe.sent)]);
        if probe.answered == 0 {
            row.fg(Color::Red)
        } else {
            row
        }
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(6),
    ];
    let table = Table::new(rows, widths)
        .header(Row::new(["target", "median", "lost"]).bold())
        .block(Block::bordered().title("Probes"));
    frame.render_widget(table, area);
}

fn draw_findings(frame: &mut Frame<'_>, state: &State, area: Rect) {
    let lines = state.verdict.as_ref().map_or_else(
        || vec![Line::from("The first round of probes takes some seconds")],
        finding_lines,
    );
    // The last lines stay on the screen, however far somebody scrolls.
    let most = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_sub(1);
    let findings = Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .scroll((state.scrolled.min(most), 0))
        .block(Block::bordered().title("Findings"));
    frame.render_widget(findings, area);
}

fn finding_lines(verdict: &Verdict) -> Vec<Line<'static>> {
    if verdict.findings.is_empty() {
        let well = verdict
            .ruled_out
            .iter()
            .map(|text| Line::from(plain(text)).dim());
        return std::iter::once(Line::from("No fault found"))
            .chain(well)
            .collect();
    }
    let mut lines = Vec::new();
    for finding in &verdict.findings {
        let severity = match finding.severity {
            Severity::Warning => "warning  ".yellow().bold(),
            Severity::Critical => "critical ".red().bold(),
        };
        let sure = match finding.confidence {
            Confidence::Suspected => "suspected",
            Confidence::Likely => "likely",
            Confidence::Certain => "certain",
        };
        lines.push(Line::from(vec![severity, plain(&finding.summary).bold()]));
        lines.push(
            Line::from(format!(
                "  {} · {} · {sure} · since {}",
                finding.cause.0,
                plain(&finding.component),
                finding.since.strftime("%H:%M:%S UTC")
            ))
            .dim(),
        );
        lines.push(Line::from(format!("  Next: {}", plain(&finding.next_step))));
    }
    lines
}

fn draw_help(frame: &mut Frame<'_>) {
    let lines = [
        "q, Ctrl-C   quit",
        "p, space    pause and go on",
        "↑ ↓ j k     scroll the findings",
        "PgUp PgDn   ten lines",
        "? h         this help",
        "",
        "↓ received, ↑ sent, a second.",
        "Nothing on this device is changed.",
    ];
    let whole = frame.area();
    let (width, height) = (40.min(whole.width), 10.min(whole.height));
    let area = Rect {
        x: whole.x + (whole.width - width) / 2,
        y: whole.y + (whole.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let help = Paragraph::new(lines.map(Line::from).to_vec());
    frame.render_widget(help.block(Block::bordered().title("Help")), area);
}

/// Narrower screens show links and findings only.
const SIDE_BY_SIDE: u16 = 90;

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::cli::look::tests::{link, sample};

    fn drawn(width: u16, height: u16, state: &State) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        terminal.backend().to_string()
    }

    fn state() -> State {
        let mut state = State::default();
        let up = |bytes| Link {
            admin_up: true,
            carrier: Some(true),
            ..link(bytes)
        };
        state.read(sample(1, vec![up(0)]));
        state.read(sample(2, vec![up(1_250_000)]));
        state.probes = vec![Probe {
            what: "echo 192.0.2.1".into(),
            sent: 5,
            answered: 0,
            median_us: None,
        }];
        state
    }

    #[test]
    fn links_rates_and_probes_are_on_a_wide_screen() {
        let screen = drawn(120, 30, &state());
        for word in ["wan", "10.0 Mb/s", "echo 192.0.2.1", "5/5", "Findings"] {
            assert!(screen.contains(word), "{word} is missing:\n{screen}");
        }
    }

    #[test]
    fn no_screen_is_too_small_to_draw_on() {
        let mut state = state();
        for help in [false, true] {
            state.help = help;
            for (width, height) in [(1, 1), (5, 3), (40, 8), (80, 24), (300, 100)] {
                drawn(width, height, &state);
            }
        }
    }

    #[test]
    fn scrolling_past_the_end_leaves_the_last_line() {
        let mut state = state();
        state.scroll(500);
        assert!(drawn(100, 24, &state).contains("some seconds"));
    }
}
