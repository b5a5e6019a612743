//! The periods of budgets, in UTC.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const DAY: i64 = 86_400;

/// After which time a budget begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Never.
    Total,
    /// Each day at midnight UTC.
    Day,
    /// On the first of each month at midnight UTC.
    Month,
}

impl Period {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    pub(crate) fn read(word: &str) -> Option<Self> {
        [Self::Total, Self::Day, Self::Month].into_iter().find(|period| period.as_str() == word)
    }

    /// When the period that holds a time began, in seconds since 1970.
    pub(crate) fn start(self, now: i64) -> i64 {
        match self {
            Self::Total => 0,
            Self::Day => now.div_euclid(DAY) * DAY,
            Self::Month => {
                let (year, month) = civil(now.div_euclid(DAY));
                days(year, month) * DAY
            }
        }
    }

    /// When the period that began at `start` ends.
    pub(crate) fn end(self, start: i64) -> Option<i64> {
        match self {
            Self::Total => None,
            Self::Day => Some(start + DAY),
            Self::Month => {
                let (year, month) = civil(start.div_euclid(DAY));
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                Some(days(year, month) * DAY)
            }
        }
    }
}

/// Days of an era of 400 years.
const ERA: i64 = 146_097;
/// Days from the first of March of year 0 to 1970.
const EPOCH: i64 = 719_468;

/// Year and month of a day since 1970, in the Gregorian calendar. Years begin in March, so that leap days are last.
fn civil(day: i64) -> (i64, i64) {
    let day = day + EPOCH;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month)
}

/// Days from 1970 to the first of a month.
fn days(year: i64, month: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    era * ERA + 365 * year + year / 4 - year / 100 + (153 * month + 2) / 5 - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_follow_one_another_without_gaps() {
        let mut start = 0;
        for month in 0..4800 {
            let end = Period::Month.end(start).unwrap();
            let length = (end - start) / DAY;
            assert!((28..=31).contains(&length), "{month}: {length}");
            for inside in [start, start + 1, end - 1] {
                assert_eq!(Period::Month.start(inside), start);
            }
            assert_eq!(civil(start / DAY), (1970 + month / 12, month % 12 + 1));
            let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            if month % 12 == 1 {
                assert_eq!(length, if leap(1970 + month / 12) { 29 } else { 28 });
            }
            start = end;
        }
    }

    #[test]
    fn known_days() {
        // 2024-02-29T12:00:00Z and 2026-12-31T23:59:59Z.
        assert_eq!(Period::Month.start(1_709_208_000), 1_706_745_600);
        assert_eq!(Period::Month.end(1_706_745_600), Some(1_709_251_200));
        assert_eq!(Period::Month.end(Period::Month.start(1_798_761_599)), Some(1_798_761_600));
        assert_eq!(Period::Day.start(1_709_208_000), 1_709_164_800);
        assert_eq!((Period::Total.start(5), Period::Total.end(0)), (0, None));
    }
}
