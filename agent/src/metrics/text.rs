//! The Prometheus text format 0.0.4.

use std::fmt::Write as _;

use super::{Family, Kind};

/// Media type of the text.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing into a string can't fail.
        writeln!(text, "# HELP {} {}", family.name, family.help).ok();
        writeln!(text, "# TYPE {} {kind}", family.name).ok();
        for sample in &family.samples {
            text.push_str(family.name);
            if !sample.labels.is_empty() {
                text.push('{');
                for (place, (name, value)) in sample.labels.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(text, "{comma}{name}=\"{}\"", escaped(value)).ok();
                }
                text.push('}');
            }
            writeln!(text, " {}", sample.value).ok();
        }
    }
    text
}

/// Label values escape backslash, quote and line feed; other control characters have no place on a terminal.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;

    #[test]
    fn a_label_can_not_break_out_of_its_quotes() {
        let family = Family {
            name: "aizen_x",
            help: "X.",
            kind: Kind::Gauge,
            samples: vec![Sample {
                labels: vec![("link", "a\"} 1\nb\\".into())],
                value: 1.5,
            }],
        };
        let want =
            "# HELP aizen_x X.\n# TYPE aizen_x gauge\naizen_x{link=\"a\\\"} 1\\nb\\\\\"} 1.5\n";
        assert_eq!(render(&[family]), want);
    }

    #[test]
    fn a_family_without_samples_is_not_told() {
        let family = Family {
            name: "aizen_x",
            help: "X.",
            kind: Kind::Counter,
            samples: Vec::new(),
        };
        assert_eq!(render(&[family]), "");
    }
}
