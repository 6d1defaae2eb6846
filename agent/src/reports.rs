//! What the control plane must still hear: reports, sent again until each is acknowledged.
//!
//! Nothing is lost with a stream: a report leaves only by its acknowledgement, which says that it is in the store. A
//! leader that has not merged this session's list yet acknowledges nothing; so reports are sent again on each new
//! stream, and with growing pauses on the same one. A later word on a step takes the place of an earlier one, and the
//! end of an attempt that of all before it: what waits is bounded by attempts and their steps, not by time.

mod refusals;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_core::ids::{Attempt, JobId};
use aldis_core::job::Report;
use aldis_proto::convert::document;
use aldis_proto::v1::{OrderRefused, ReportFrame};
use tokio::sync::Notify;
use tokio::time::Instant;

use refusals::Refusals;

/// Before the first repeat on one stream: a write into the store takes a hundredth of it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a report that nobody takes (an orphan's) costs one frame a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Reports on their way. Clones are the same.
#[derive(Clone, Default)]
pub struct Reports(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    refusals: Mutex<Refusals>,
    added: Notify,
}

type Waiting = BTreeMap<(JobId, Attempt), Vec<Pending>>;

struct Pending {
    report: Report,
    sequence: u64,
    /// On which stream it was sent last, and when it is due again there.
    sent: Option<(u64, Instant)>,
    pause: Duration,
    /// Whether it was ever sent: only then can an acknowledgement mean it.
    was_sent: bool,
}

impl Reports {
    /// Nothing to say.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the agent's newest word on an attempt. `sequence` is that of the journal.
    pub fn add(&self, job: JobId, attempt: Attempt, sequence: u64, report: Report) {
        {
            let mut waiting = self.waiting();
            let of_attempt = waiting.entry((job, attempt)).or_default();
            of_attempt.retain(|pending| !is_covered(&pending.report, &report));
            of_attempt.push(Pending {
                report,
                sequence,
                sent: None,
                pause: FIRST_PAUSE,
                was_sent: false,
            });
        }
        self.0.added.notify_one();
    }

    /// What is to be sent on stream `stream` now, in order.
    pub fn due(&self, stream: u64, now: Instant) -> Vec<ReportFrame> {
        let mut due = Vec::new();
        for ((job, attempt), pending) in self.waiting().iter_mut() {
            for report in pending {
                match report.sent {
                    Some((on, again)) if on == stream && now < again => continue,
                    Some((on, _)) if on == stream => {
                        report.pause = (report.pause * 2).min(LONGEST_PAUSE);
                    }
                    Some(_) | None => report.pause = FIRST_PAUSE,
                }
                report.sent = Some((stream, now + report.pause));
                report.was_sent = true;
                due.push(ReportFrame {
                    job: job.to_string(),
                    attempt: attempt.0,
                    sequence: report.sequence,
                    report: Some(document(&report.report)),
                });
            }
        }
        due
    }

    /// Makes everything due at once: a leader that has just merged takes what it refused before.
    pub fn hurry(&self) {
        for report in self.waiting().values_mut().flatten() {
            report.sent = None;
        }
        self.0.added.notify_one();
    }

    /// Returns when something was added, or the time of the next repeat has come.
    pub async fn wait(&self, stream: u64) {
        match self.next_due(stream, Instant::now()) {
            None => self.0.added.notified().await,
            Some(next) => {
                // Either is a reason to look again.
                let _ = tokio::time::timeout_at(next, self.0.added.notified()).await;
            }
        }
    }

    fn next_due(&self, stream: u64, now: Instant) -> Option<Instant> {
        let refused = self.refusals().next_due(stream, now);
        let waiting = self.waiting();
        let due = waiting.values().flatten().map(|report| match report.sent {
            Some((on, again)) if on == stream => again,
            Some(_) | None => now,
        });
        due.chain(refused).min()
    }

    /// The agent does not carry out what is ordered of this attempt. Said until [`Reports::taken`].
    pub fn refuse(&self, job: JobId, attempt: Attempt, reason: String) {
        if self.refusals().add(job, attempt, reason) {
            self.0.added.notify_one();
        }
    }

    /// What was ordered of this attempt is carried out.
    pub fn taken(&self, job: &JobId, attempt: Attempt) {
        self.refusals().withdraw(job, attempt);
    }

    /// Another stream: what the one before it ordered is void, and so are the refusals of it.
    pub fn ordered_anew(&self) {
        self.refusals().clear();
    }

    /// The refusals that are to be said on stream `stream` now.
    pub fn refusals_due(&self, stream: u64, now: Instant) -> Vec<OrderRefused> {
        self.refusals().due(stream, now)
    }

    /// Takes out what is in the store: the oldest report of that number which was sent. Several may share it, since only
    /// what is journalled has one of its own. True when it was the end of the attempt.
    pub fn acknowledge(&self, job: &JobId, attempt: Attempt, sequence: u64, ended: bool) -> bool {
        let mut waiting = self.waiting();
        let key = (job.clone(), attempt);
        let Some(pending) = waiting.get_mut(&key) else {
            return false;
        };
        let meant = pending.iter().position(|report| {
            report.was_sent && report.sequence == sequence && is_end(&report.report) == ended
        });
        let was_there = meant.map(|meant| pending.remove(meant)).is_some();
        if pending.is_empty() {
            waiting.remove(&key);
        }
        ended && was_there
    }

    /// How many wait for their acknowledgement.
    pub fn count(&self) -> usize {
        self.waiting().values().map(Vec::len).sum()
    }

    /// Forgets everything: the journal that it came from is gone.
    pub fn clear(&self) {
        self.waiting().clear();
        self.refusals().clear();
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.0
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody needs `old` once `new` is known.
fn is_covered(old: &Report, new: &Report) -> bool {
    match (old, new) {
        (_, Report::Ended { .. }) => true,
        (Report::Step { step: old, .. }, Report::Step { step: new, .. }) => old == new,
        (Report::Parked { .. }, Report::Parked { .. }) => true,
        (Report::Accepted, Report::Accepted) => true,
        (
            Report::Accepted | Report::Step { .. } | Report::Parked { .. } | Report::Ended { .. },
            Report::Accepted | Report::Step { .. } | Report::Parked { .. },
        ) => false,
    }
}

fn is_end(report: &Report) -> bool {
    matches!(report, Report::Ended { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aldis_core::outcome::{SegmentOutcome, StepState};

    fn job() -> JobId {
        "j-1".into()
    }

    fn add(reports: &Reports, sequence: u64, report: Report) {
        reports.add(job(), Attempt(1), sequence, report);
    }

    fn step(step: &str, tries: u32) -> Report {
        Report::Step {
            step: step.into(),
            state: StepState::Running { tries },
        }
    }

    fn ended() -> Report {
        Report::Ended {
            outcome: SegmentOutcome::Succeeded,
            steps: BTreeMap::new(),
        }
    }

    fn sequences(frames: &[ReportFrame]) -> Vec<u64> {
        frames.iter().map(|frame| frame.sequence).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_with_growing_pauses_and_at_once_on_a_new_stream() {
        let reports = Reports::new();
        add(&reports, 7, Report::Accepted);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(sequences(&reports.due(1, at(0))), [7]);
        assert!(reports.due(1, at(999)).is_empty());
        assert_eq!(sequences(&reports.due(1, at(1000))), [7]);
        assert!(reports.due(1, at(2999)).is_empty(), "twice the pause");
        assert_eq!(sequences(&reports.due(2, at(2999))), [7], "another stream");
        assert!(!reports.acknowledge(&job(), Attempt(1), 7, false));
        assert!(reports.due(3, at(9000)).is_empty());
    }

    #[test]
    fn a_later_word_takes_the_place_of_an_earlier_one_and_the_end_of_all() {
        let reports = Reports::new();
        let now = Instant::now();
        add(&reports, 1, Report::Accepted);
        add(&reports, 2, step("a", 1));
        add(&reports, 3, step("b", 1));
        add(&reports, 4, step("a", 2));
        assert_eq!(sequences(&reports.due(1, now)), [1, 3, 4]);
        add(&reports, 5, ended());
        assert_eq!(sequences(&reports.due(2, now)), [5]);
    }

    #[test]
    fn only_the_acknowledgement_of_the_end_ends_an_attempt() {
        let reports = Reports::new();
        add(&reports, 5, Report::Parked { parked: true });
        reports.due(1, Instant::now());
        assert!(!reports.acknowledge(&job(), Attempt(1), 5, false));
        add(&reports, 5, ended());
        reports.due(1, Instant::now());
        assert!(
            !reports.acknowledge(&job(), Attempt(1), 5, false),
            "a repeat"
        );
        assert!(reports.acknowledge(&job(), Attempt(1), 5, true));
        assert!(!reports.acknowledge(&job(), Attempt(1), 5, true));
    }

    #[test]
    fn an_acknowledgement_takes_one_report_and_none_that_was_never_sent() {
        let reports = Reports::new();
        let now = Instant::now();
        add(&reports, 5, step("read", 1));
        reports.due(1, now);
        // No entry lies between them, so the journal's number is the same.
        add(&reports, 5, Report::Parked { parked: true });
        for _repeat in 0..2 {
            reports.acknowledge(&job(), Attempt(1), 5, false);
        }
        assert_eq!(sequences(&reports.due(1, now)), [5], "never sent before");
        add(&reports, 5, step("other", 1));
        reports.due(1, now);
        reports.acknowledge(&job(), Attempt(1), 5, false);
        assert_eq!(sequences(&reports.due(2, now)), [5], "one of two is taken");
    }

    #[tokio::test]
    async fn waiting_ends_with_a_new_report_or_the_next_repeat() {
        let reports = Reports::new();
        let now = Instant::now();
        assert_eq!(reports.next_due(1, now), None);
        let waiting = {
            let reports = reports.clone();
            tokio::spawn(async move { reports.wait(1).await })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "nothing to say");
        add(&reports, 1, Report::Accepted);
        waiting.await.unwrap();
        reports.due(1, now);
        assert_eq!(reports.next_due(1, now), Some(now + FIRST_PAUSE));
        assert_eq!(reports.next_due(2, now), Some(now), "another stream");
    }
}
