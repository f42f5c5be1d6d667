//! A verdict beside what was expected.

use aizen_protocol::finding::{Finding, Health, Severity, Verdict};

use super::scenario::{Expect, Other};

/// True if nothing is left of a fault after its repair, or nothing but the warnings that are right then.
#[must_use]
pub fn is_mended(expect: &Expect, verdict: &Verdict) -> bool {
    let left = |finding: &Finding| {
        finding.severity == Severity::Warning
            && expect.leaves.iter().any(|other| fits(other, finding))
    };
    verdict.health != Health::Unknown && verdict.findings.iter().all(left)
}

/// A verdict without what is true of the machine that runs the lab: its processors and its memory serve every namespace,
/// and whoever builds programs on it meanwhile.
#[must_use]
pub fn without_the_machine(mut verdict: Verdict) -> Verdict {
    let of_the_machine = |finding: &Finding| OF_THE_MACHINE.contains(&finding.cause.0.as_str());
    verdict.findings.retain(|finding| !of_the_machine(finding));
    if verdict.health != Health::Unknown {
        let worst = verdict
            .findings
            .iter()
            .map(|finding| finding.severity)
            .max();
        verdict.health = match worst {
            Some(Severity::Critical) => Health::Critical,
            Some(Severity::Warning) => Health::Warning,
            None => Health::Healthy,
        };
    }
    verdict
}

/// No scenario that runs makes these.
const OF_THE_MACHINE: [&str; 6] = [
    "cpu_saturated",
    "load_high",
    "memory_exhausted",
    "swap_thrashing",
    "oom_kill",
    "io_stall",
];

/// What a verdict was worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The first finding names the cause.
    pub cause: bool,
    /// And the component.
    pub component: bool,
    /// Findings that nobody expected, `CAUSE COMPONENT`.
    pub extra: Vec<String>,
    /// The first finding, `CAUSE COMPONENT`, or the health where there is none.
    pub told: String,
}

impl Judged {
    /// A fault beside the verdict on it.
    #[must_use]
    pub fn fault(expect: &Expect, verdict: &Verdict) -> Self {
        let told = told(verdict);
        let Some((first, rest)) = verdict.findings.split_first() else {
            return Self {
                told,
                ..Self::default()
            };
        };
        let exact = first.cause.0 == expect.cause;
        let component = exact && first.component.0 == expect.component;
        let instead = expect.or.iter().any(|other| fits(other, first));
        let known = |finding: &&Finding| {
            finding.cause.0 != expect.cause
                && !expect
                    .or
                    .iter()
                    .chain(&expect.also)
                    .any(|other| fits(other, finding))
        };
        Self {
            cause: exact || instead,
            component: component || instead,
            extra: rest.iter().filter(known).map(short).collect(),
            told,
        }
    }

    /// A healthy network beside the verdict on it: every finding is a false alarm.
    #[must_use]
    pub fn healthy(verdict: &Verdict) -> Self {
        let well = verdict.health == Health::Healthy;
        Self {
            cause: well,
            component: well,
            extra: verdict.findings.iter().map(short).collect(),
            told: told(verdict),
        }
    }

    /// Right in every respect.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.cause && self.component && self.extra.is_empty()
    }
}

fn fits(other: &Other, finding: &Finding) -> bool {
    other.cause == finding.cause.0
        && other
            .component
            .as_ref()
            .is_none_or(|component| *component == finding.component.0)
}

fn short(finding: &Finding) -> String {
    format!("{} {}", finding.cause.0, finding.component.0)
}

fn told(verdict: &Verdict) -> String {
    verdict
        .findings
        .first()
        .map_or_else(|| format!("{:?}", verdict.health).to_lowercase(), short)
}

#[cfg(test)]
mod tests {
    use aizen_protocol::finding::{Cause, Confidence};
    use jiff::Timestamp;

    use super::*;

    fn verdict(findings: &[(&str, &str)]) -> Verdict {
        let finding = |(cause, component): &(&str, &str)| Finding {
            cause: Cause((*cause).to_owned()),
            component: (*component).into(),
            severity: Severity::Critical,
            confidence: Confidence::Certain,
            summary: "".into(),
            since: Timestamp::UNIX_EPOCH,
            evidence: Vec::new(),
            contradictions: Vec::new(),
            missing: Vec::new(),
            consequences: Vec::new(),
            next_step: "".into(),
            proposal: None,
        };
        Verdict {
            health: if findings.is_empty() {
                Health::Healthy
            } else {
                Health::Critical
            },
            at: Timestamp::UNIX_EPOCH,
            findings: findings.iter().map(finding).collect(),
            ruled_out: Vec::new(),
            unseen: Vec::new(),
        }
    }

    fn expect() -> Expect {
        Expect {
            cause: "link_down".into(),
            component: "eth0".into(),
            or: vec![Other {
                cause: "link_flapping".into(),
                component: None,
                why: "either is seen".into(),
            }],
            also: vec![Other {
                cause: "no_default_route".into(),
                component: None,
                why: "it goes with the link".into(),
            }],
            repair: false,
            learns: false,
            after: Vec::new(),
            leaves: Vec::new(),
        }
    }

    #[test]
    fn the_first_finding_alone_decides_on_the_cause() {
        let judged = |findings: &[(&str, &str)]| {
            let judged = Judged::fault(&expect(), &verdict(findings));
            (judged.cause, judged.component, judged.passed())
        };
        assert_eq!(judged(&[("link_down", "eth0")]), (true, true, true));
        assert_eq!(judged(&[("link_down", "eth1")]), (true, false, false));
        assert_eq!(judged(&[("link_flapping", "eth1")]), (true, true, true));
        assert_eq!(judged(&[]), (false, false, false));
        let second = [("resolver_dead", "192.0.2.1"), ("link_down", "eth0")];
        assert_eq!(judged(&second), (false, false, false));
        let both = [("link_down", "eth0"), ("no_default_route", "x")];
        assert_eq!(judged(&both), (true, true, true));
        let extra = [("link_down", "eth0"), ("disk_full", "/")];
        assert_eq!(judged(&extra), (true, true, false));
    }

    #[test]
    fn a_repair_may_leave_a_warning_that_was_named_and_nothing_critical() {
        let mut expect = expect();
        let left = verdict(&[("no_default_route", "x")]);
        assert!(!is_mended(&expect, &left));
        expect.leaves = expect.also.clone();
        assert!(!is_mended(&expect, &left), "it is critical");
        let mut warning = left;
        warning.findings[0].severity = Severity::Warning;
        assert!(is_mended(&expect, &warning));
        assert!(is_mended(&expect, &verdict(&[])));
    }

    #[test]
    fn any_finding_on_a_healthy_network_is_a_false_alarm() {
        assert!(Judged::healthy(&verdict(&[])).passed());
        assert!(!Judged::healthy(&verdict(&[("disk_full", "/")])).passed());
    }

    #[test]
    fn what_the_labs_machine_suffers_from_is_no_finding_on_the_network() {
        let busy = [("cpu_saturated", "processors"), ("oom_kill", "memory")];
        let alone = without_the_machine(verdict(&busy));
        assert!(Judged::healthy(&alone).passed());
        let beside = without_the_machine(verdict(&[busy[1], ("link_down", "eth0")]));
        assert!(Judged::fault(&expect(), &beside).passed());
        assert_eq!(beside.health, Health::Critical);
    }
}
