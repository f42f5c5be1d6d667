//! Delay under load as a letter, by the scale of Waveform's bufferbloat test
//! (<https://www.waveform.com/tools/bufferbloat>), which people compare theirs with.

use std::time::Duration;

use serde::Serialize;

/// From the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Grade {
    /// Nobody notices a load.
    #[serde(rename = "A+")]
    APlus,
    /// Good for everything.
    A,
    /// Games may notice.
    B,
    /// Calls suffer.
    C,
    /// Calls break up.
    D,
    /// Everything interactive stops.
    F,
}

impl Grade {
    /// By what a load adds to the median round trip.
    pub(super) fn of(added: Duration) -> Self {
        match added.as_millis() {
            0..5 => Self::APlus,
            5..30 => Self::A,
            30..60 => Self::B,
            60..200 => Self::C,
            200..400 => Self::D,
            _ => Self::F,
        }
    }

    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::APlus => "A+",
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::F => "F",
        }
    }
}

/// What the expert calls bufferbloat.
pub(super) const BLOAT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grade_falls_as_the_added_delay_grows() {
        let grades = [0, 4, 5, 29, 30, 60, 199, 200, 400, 9000]
            .map(|ms| Grade::of(Duration::from_millis(ms)).letter());
        assert_eq!(grades, ["A+", "A+", "A", "A", "B", "C", "C", "D", "F", "F"]);
        assert!(Grade::APlus < Grade::A && Grade::D < Grade::F);
    }
}
