//! Moments and lengths of time as people read them.

use std::time::Duration;

use aldis_core::ids::Timestamp;
use jiff::tz::TimeZone;

/// `1m12s`, `58s`, `2h03m`, `4d02h`: two units at most.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// `4m ago`: one unit, since nobody reads the second one.
pub fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// Time of day, `12:04:51`.
pub fn clock(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%H:%M:%S").to_string()
}

/// Day and time with the zone, `2026-11-25 12:04:51 +01:00`.
pub fn full(at: Timestamp, zone: &TimeZone) -> String {
    zoned(at, zone)
        .strftime("%Y-%m-%d %H:%M:%S %:z")
        .to_string()
}

/// For JSON: RFC 3339 in UTC with milliseconds.
pub fn rfc3339(at: Timestamp) -> String {
    zoned(at, &TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

/// A text without the moments in it: what tells whether two texts say the same of different times, and then says it of
/// both.
pub fn timeless(text: &str) -> String {
    let word = |word: &str| {
        let moment = word.trim_end_matches([',', ';', ')']);
        match moment.parse::<jiff::Timestamp>() {
            Ok(_) => format!("different times{}", &word[moment.len()..]),
            Err(_) => word.to_owned(),
        }
    };
    let words: Vec<_> = text.split(' ').map(word).collect();
    words.join(" ")
}

/// The moment by this machine's clock.
pub fn now() -> Timestamp {
    let now = jiff::Timestamp::now().as_millisecond();
    Timestamp(u64::try_from(now).unwrap_or(0))
}

fn zoned(at: Timestamp, zone: &TimeZone) -> jiff::Zoned {
    let at = i64::try_from(at.0).ok();
    let at = at.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_two_units_at_most() {
        let said = [0, 58, 72, 7_380, 352_800].map(|s| span(Duration::from_secs(s)));
        assert_eq!(said, ["0s", "58s", "1m12s", "2h03m", "4d02h"]);
    }

    #[test]
    fn a_text_without_its_moments_keeps_everything_else() {
        let text = "someone wrote it at 2026-11-25T23:08:17Z; 2026-11-25, at 3 (or 2026-11-25T23:08:17.5Z)";
        assert_eq!(
            timeless(text),
            "someone wrote it at different times; 2026-11-25, at 3 (or different times)"
        );
        assert_eq!(timeless("no  moment"), "no  moment");
    }

    #[test]
    fn moments_are_read_in_the_zone_of_the_reader() {
        let at = Timestamp(1_795_600_000_123);
        assert_eq!(clock(at, &TimeZone::UTC), "09:46:40");
        assert_eq!(rfc3339(at), "2026-11-25T09:46:40.123Z");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(full(at, &zone), "2026-11-25 10:46:40 +01:00");
    }
}
