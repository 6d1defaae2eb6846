//! What a bad release does to itself, beside what it does to requests.

use std::convert::Infallible;
use std::time::Duration;

use crate::release::{Behaviour, Crash};

/// Between two pieces of a leak.
const PIECE: Duration = Duration::from_millis(100);

const MIB: u64 = 1 << 20;

/// Ends when the release ends by itself. Never for one that does not.
pub(crate) async fn crashed(behaviour: &Behaviour) -> Duration {
    match behaviour.crash {
        Crash::Never => std::future::pending().await,
        Crash::AtStart => Duration::ZERO,
        Crash::After(time) => {
            tokio::time::sleep(time).await;
            time
        }
    }
}

/// Keeps memory for ever, in pieces of a tenth of a second. Written to, since pages that nobody touched cost
/// nothing.
pub(crate) async fn leak(mib_in_a_second: u64) -> Infallible {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    if mib_in_a_second == 0 {
        return std::future::pending().await;
    }
    let piece = usize::try_from(mib_in_a_second.saturating_mul(MIB) / 10).unwrap_or(usize::MAX);
    loop {
        // Else the compiler might see that nobody reads it.
        kept.push(std::hint::black_box(vec![1; piece]));
        tokio::time::sleep(PIECE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_crashes_when_its_time_has_come_and_not_before() {
        let time = Duration::from_secs(30);
        let behaviour = Behaviour {
            crash: Crash::After(time),
            ..Behaviour::GOOD
        };
        let start = tokio::time::Instant::now();
        assert_eq!(crashed(&behaviour).await, time);
        assert_eq!(start.elapsed(), time);
        let good = tokio::time::timeout(time * 1000, crashed(&Behaviour::GOOD)).await;
        assert!(good.is_err());
    }
}
