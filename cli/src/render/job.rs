//! A job as a tree by wave and region, to be redrawn in place or printed once.
//!
//! Waves that are done, or not begun, are one line each. Where there are more targets than rows, regions
//! are counted and only what needs eyes is named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aldis_core::decide::WaitingOn;
use aldis_core::ids::{TargetName, Timestamp};
use aldis_core::job::{JobState, Link, StopCause};
use aldis_core::view::{JobView, WaveView};

use super::standing::{self, Class, Standing, name_in};
use super::text::{Line, Tone, count};
use super::time::span;

/// Reasons for waiting that are shown; more are counted.
const REASONS: usize = 4;

/// Names in the line of a wave that is folded.
const NAMES: usize = 6;

/// When targets were seen to begin and to rest, by the clock of the server.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    begun: BTreeMap<TargetName, Timestamp>,
    rested: BTreeMap<TargetName, Timestamp>,
}

impl Seen {
    /// Takes note of the next view. What had begun before the first one has no known length.
    pub fn note(&mut self, before: Option<&JobView>, view: &JobView) {
        for (name, target) in &view.targets {
            let is_at = |class: Class, of: &JobView| {
                of.targets
                    .get(name)
                    .is_some_and(|target| standing::of(of, name, target).class == class)
            };
            let class = standing::of(view, name, target).class;
            let was_waiting = before.map_or(view.header.started_at.is_none(), |before| {
                is_at(Class::Waiting, before)
            });
            if class != Class::Waiting && was_waiting {
                self.begun.insert(name.clone(), view.now);
            }
            match class {
                Class::Done | Class::Failed => {
                    self.rested.entry(name.clone()).or_insert(view.now);
                }
                Class::Running | Class::Waiting | Class::Unknown => {
                    self.rested.remove(name);
                }
            }
        }
    }

    /// How long a target worked that is at rest, as far as it was seen.
    pub fn rested(&self, target: &TargetName) -> Option<Duration> {
        let rested = self.rested.get(target)?;
        self.begun.get(target).map(|begun| rested.since(*begun))
    }

    /// How long a target has worked, or did work, as far as it was seen.
    pub fn length(&self, target: &TargetName, now: Timestamp) -> Option<Duration> {
        let end = self.rested.get(target).copied().unwrap_or(now);
        self.begun.get(target).map(|begun| end.since(*begun))
    }
}

/// What is drawn.
pub struct Drawing<'a> {
    /// The job.
    pub view: &'a JobView,
    /// Since when its targets work.
    pub seen: &'a Seen,
    /// The server's clock, carried on since the view was made.
    pub now: Timestamp,
    /// Rows to draw in.
    pub rows: usize,
    /// What stands at the end, such as how to leave.
    pub footer: &'a str,
}

impl Drawing<'_> {
    /// The tree.
    pub fn lines(&self) -> Vec<Line> {
        let whole = self.with(&Fold::Nothing);
        if whole.len() <= self.rows {
            return whole;
        }
        let counted = self.with(&Fold::Regions(BTreeSet::new()));
        let room = self.rows.saturating_sub(counted.len());
        self.with(&Fold::Regions(self.needing_eyes(room)))
    }

    /// The targets to name where not all can be: trouble before work, in the order of the waves.
    fn needing_eyes(&self, room: usize) -> BTreeSet<&TargetName> {
        let all = self.view.waves.iter().flat_map(|wave| &wave.targets);
        let mut eyes: Vec<_> = all
            .filter_map(|name| {
                let target = self.view.targets.get(name)?;
                let class = standing::of(self.view, name, target).class;
                (class < Class::Waiting).then_some((class, name))
            })
            .collect();
        eyes.sort_by_key(|(class, _)| *class);
        eyes.into_iter().take(room).map(|(_, name)| name).collect()
    }

    fn with(&self, fold: &Fold<'_>) -> Vec<Line> {
        let mut lines = vec![title(self.view)];
        lines.extend(cause(self.view));
        for (index, wave) in self.view.waves.iter().enumerate() {
            self.wave(index, wave, fold, &mut lines);
            lines.extend(self.soak(index));
        }
        lines.extend(reasons(self.view));
        lines.push(self.totals());
        lines
    }

    fn wave(&self, index: usize, wave: &WaveView, fold: &Fold<'_>, lines: &mut Vec<Line>) {
        let all: Vec<_> = wave
            .targets
            .iter()
            .filter_map(|name| {
                let target = self.view.targets.get(name)?;
                Some((name, standing::of(self.view, name, target)))
            })
            .collect();
        let is = |class: Class| all.iter().filter(|(_, at)| at.class == class).count();
        let (done, waiting) = (is(Class::Done), is(Class::Waiting));
        let mut head = if done == all.len() {
            Line::of(Tone::Good, "✔ ")
        } else if waiting + done == all.len() {
            Line::of(Tone::Dim, "○ ")
        } else {
            Line::of(Tone::Strong, "▾ ")
        };
        let name = wave_name(index, &wave.name);
        head.push(Tone::Strong, name);
        head.push(Tone::Plain, format!("  {done}/{}", all.len()));
        if done == all.len() || waiting + done == all.len() {
            let quiet = if done == all.len() {
                Tone::Plain
            } else {
                Tone::Dim
            };
            head.push(quiet, format!("   {}", self.names(&all)));
            if let Some(length) = self.wave_length(wave) {
                head.push(Tone::Dim, format!("   {}", span(length)));
            }
            lines.push(head);
            return;
        }
        lines.push(head);
        match fold {
            Fold::Nothing => lines.extend(self.targets(all.iter())),
            Fold::Regions(named) => {
                lines.extend(regions(&all));
                let eyes = all.iter().filter(|(name, _)| named.contains(*name));
                lines.extend(self.targets(eyes));
            }
        }
    }

    fn targets<'b>(
        &self,
        targets: impl Iterator<Item = &'b (&'b TargetName, Standing)> + Clone,
    ) -> Vec<Line> {
        let widest = targets
            .clone()
            .map(|(name, _)| Line::from(name_in(self.view, name)).width())
            .max()
            .unwrap_or(0);
        targets
            .map(|(name, at)| {
                let mut line = Line::from("  ").with(at.tone, format!("{} ", at.glyph));
                line.push(Tone::Plain, name_in(self.view, name));
                line.pad(4 + widest + 2);
                line.push(at.tone, at.word);
                if !at.detail.is_empty() {
                    line.pad(4 + widest + 2 + 12);
                    line.push(Tone::Plain, at.detail.clone());
                }
                if let Some(length) = self.seen.length(name, self.now) {
                    line.push(Tone::Dim, format!("  {}", span(length)));
                }
                line
            })
            .collect()
    }

    fn names(&self, all: &[(&TargetName, Standing)]) -> String {
        let mut names: Vec<String> = all
            .iter()
            .take(NAMES)
            .map(|(name, at)| {
                let name = name_in(self.view, name);
                // A wave may be done without having changed all of its targets.
                match at.word {
                    "left alone" | "untouched" | "restored" => format!("{name} {}", at.word),
                    _ => name,
                }
            })
            .collect();
        if all.len() > NAMES {
            names.push(format!("and {} more", all.len() - NAMES));
        }
        names.join(", ")
    }

    /// From the first target's begin to the last one's rest.
    fn wave_length(&self, wave: &WaveView) -> Option<Duration> {
        let begun = wave.targets.iter().filter_map(|t| self.seen.begun.get(t));
        let rested = wave.targets.iter().filter_map(|t| self.seen.rested.get(t));
        Some(rested.max()?.since(*begun.min()?))
    }

    fn soak(&self, index: usize) -> Option<Line> {
        let soak = self
            .view
            .waiting
            .iter()
            .find_map(|waiting| match &waiting.on {
                WaitingOn::Soak { wave, left, unread } if *wave == index => Some((left, unread)),
                _ => None,
            });
        let (left, unread) = soak?;
        let mut line = Line::of(Tone::Busy, "◐ soak");
        if unread.is_empty() {
            let left = left.saturating_sub(self.now.since(self.view.now));
            line.push(Tone::Plain, format!("  {} left", span(left)));
        } else {
            let names: Vec<String> = unread
                .iter()
                .map(|(name, why)| format!("{} ({why})", name_in(self.view, name)))
                .collect();
            let why = format!("  not counted: cannot read {}", names.join(", "));
            line.push(Tone::Warn, why);
        }
        Some(line)
    }

    fn totals(&self) -> Line {
        let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
        for (name, target) in &self.view.targets {
            *classes
                .entry(standing::of(self.view, name, target).class)
                .or_default() += 1;
        }
        let of = |class| classes.get(&class).copied().unwrap_or(0);
        let mut line = Line::of(Tone::Dim, "─ ");
        line.push(Tone::Plain, format!("{} done", of(Class::Done)));
        line.push(Tone::Plain, format!(" · {} running", of(Class::Running)));
        line.push(Tone::Plain, format!(" · {} waiting", of(Class::Waiting)));
        let failed = of(Class::Failed);
        let tone = if failed > 0 { Tone::Bad } else { Tone::Plain };
        line.push(tone, format!(" · {failed} failed"));
        if of(Class::Unknown) > 0 {
            line.push(Tone::Warn, format!(" · {} unknown", of(Class::Unknown)));
        }
        let header = &self.view.header;
        let from = header.started_at.unwrap_or(header.submitted_at);
        let until = header.ended_at.unwrap_or(self.now);
        line.push(Tone::Dim, format!(" ─ elapsed {}", span(until.since(from))));
        if !self.footer.is_empty() {
            line.push(Tone::Dim, format!(" ─ {}", self.footer));
        }
        line
    }
}

/// How much is folded.
enum Fold<'a> {
    /// Every target has its line.
    Nothing,
    /// Regions are counted, and these have their lines.
    Regions(BTreeSet<&'a TargetName>),
}

/// `wave 1 canary`; only the number where the name says no more.
pub fn wave_name(index: usize, name: &str) -> String {
    let number = index + 1;
    if name == format!("wave-{number}") {
        format!("wave {number}")
    } else {
        format!("wave {number} {name}")
    }
}

/// `Job j-… · rollback-service@4 · by user/mei · running`.
pub fn title(view: &JobView) -> Line {
    let header = &view.header;
    let mut line = Line::of(Tone::Strong, format!("Job {}", header.id.short()));
    line.push(Tone::Plain, format!(" · {}", header.runbook));
    line.push(Tone::Plain, format!(" · by {}", header.submitted_by));
    match &header.link {
        Some(Link::Undoes { job }) => line.push(Tone::Plain, format!(" · undoes {}", job.short())),
        Some(Link::Retries { job }) => {
            line.push(Tone::Plain, format!(" · retries {}", job.short()));
        }
        None => {}
    }
    line.push(Tone::Plain, " · ");
    line.push(tone(&header.state), state_words(&header.state));
    if header.simulated {
        line.push(Tone::Warn, " · with simulated targets");
    }
    line
}

/// The state of a job in words.
pub fn state_words(state: &JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Stopping { .. } => "stopping",
        JobState::Unwinding { .. } => "going back",
        JobState::Succeeded => "succeeded",
        JobState::PartlyDone => "partly done",
        JobState::Failed {
            cause: StopCause::Drift { .. },
        } => "refused",
        JobState::Failed { .. } => "failed",
        JobState::Undone { .. } => "failed and undone",
        JobState::Cancelled { .. } => "cancelled",
        JobState::NeedsOperator { .. } => "needs operator",
    }
}

/// The tone of a job's state.
pub fn tone(state: &JobState) -> Tone {
    match state {
        JobState::Queued | JobState::Paused => Tone::Warn,
        JobState::Running => Tone::Busy,
        JobState::Succeeded => Tone::Good,
        JobState::Stopping { .. }
        | JobState::Unwinding { .. }
        | JobState::PartlyDone
        | JobState::Failed { .. }
        | JobState::Undone { .. }
        | JobState::Cancelled { .. }
        | JobState::NeedsOperator { .. } => Tone::Bad,
    }
}

/// Why the job opens nothing more.
fn cause(view: &JobView) -> Option<Line> {
    let (what, cause) = match &view.header.state {
        JobState::Stopping { cause } => ("stopping", cause),
        JobState::Unwinding { cause } => ("going back", cause),
        _ => return None,
    };
    Some(Line::of(Tone::Warn, format!("! {what}: {cause}")))
}

/// What is waited for, beside agents at work and the soak, which the tree itself shows.
fn reasons(view: &JobView) -> Vec<Line> {
    let news: Vec<_> = view
        .waiting
        .iter()
        .filter(|waiting| match &waiting.on {
            WaitingOn::Soak { .. } | WaitingOn::EarlierWaves { .. } => false,
            WaitingOn::Agent { .. } => false,
            WaitingOn::Turn
            | WaitingOn::RunningJobs { .. }
            | WaitingOn::Lock { .. }
            | WaitingOn::DriftCheck { .. }
            | WaitingOn::AgentAbsent { .. }
            | WaitingOn::AgentNotMerged { .. }
            | WaitingOn::AgentContested { .. }
            | WaitingOn::AgentHeld { .. }
            | WaitingOn::OrderRefused { .. }
            | WaitingOn::DispatchHalted { .. }
            | WaitingOn::Barrier { .. }
            | WaitingOn::Slot { .. }
            | WaitingOn::Deferred { .. }
            | WaitingOn::LatePlan { .. }
            | WaitingOn::Paused
            | WaitingOn::Operator { .. } => true,
        })
        .collect();
    let mut lines: Vec<Line> = news
        .iter()
        .take(REASONS)
        .map(|waiting| {
            let mut line = Line::of(Tone::Warn, "… ").and(format!("waits for {}", waiting.text));
            if let Some(next) = &waiting.next {
                line.push(Tone::Dim, format!("   {next}"));
            }
            line
        })
        .collect();
    if news.len() > REASONS {
        let more = news.len() - REASONS;
        let text = format!("… and {}", count(more, "other reason", "other reasons"));
        lines.push(Line::of(Tone::Dim, text));
    }
    lines
}

/// One line for each region.
fn regions(all: &[(&TargetName, Standing)]) -> Vec<Line> {
    let mut of: BTreeMap<&str, BTreeMap<Class, usize>> = BTreeMap::new();
    for (name, at) in all {
        *of.entry(name.region())
            .or_default()
            .entry(at.class)
            .or_default() += 1;
    }
    let widest = of.keys().map(|region| region.len()).max().unwrap_or(0);
    of.into_iter()
        .map(|(region, classes)| {
            let mut line = Line::from("  ").with(Tone::Strong, region);
            line.pad(widest + 4);
            let total: usize = classes.values().sum();
            let of = |class| classes.get(&class).copied().unwrap_or(0);
            line.push(Tone::Plain, format!("{}/{total} done", of(Class::Done)));
            for (class, word, tone) in [
                (Class::Running, "running", Tone::Busy),
                (Class::Waiting, "waiting", Tone::Dim),
                (Class::Failed, "failed", Tone::Bad),
                (Class::Unknown, "unknown", Tone::Warn),
            ] {
                if of(class) > 0 {
                    line.push(tone, format!(" · {} {word}", of(class)));
                }
            }
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{
        self, done, fail, image_gone, part, plan, put, step, target, view,
    };
    use crate::render::text::plain;
    use aldis_core::job::{Direction, Rest, TargetState};
    use aldis_core::outcome::StepState;

    const FLEET: [&str; 6] = [
        "ap-south/prod-1",
        "ap-south/prod-2",
        "eu-west/prod-1",
        "eu-west/prod-2",
        "us-east/prod-1",
        "us-east/prod-2",
    ];

    fn draw(view: &JobView, seen: &Seen, rows: usize) -> String {
        let drawing = Drawing {
            view,
            seen,
            now: view.now,
            rows,
            footer: "Ctrl-C detaches",
        };
        plain(&drawing.lines())
    }

    fn running() -> aldis_core::job::Job {
        let mut job = sample::job(plan(&FLEET));
        put(
            &mut job,
            "ap-south/prod-1",
            TargetState::Rest(Rest::Changed),
        );
        job.header.wave = 1;
        put(
            &mut job,
            "ap-south/prod-2",
            TargetState::Rest(Rest::Changed),
        );
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Running { segment: 1 },
        );
        for id in ["now", "old", "rollback"] {
            step(&mut job, "eu-west/prod-1", id, done());
        }
        let waits = StepState::Running { tries: 1 };
        step(&mut job, "eu-west/prod-1", "wait_rollout", waits);
        job
    }

    #[test]
    fn done_waves_and_those_to_come_are_one_line_each() {
        let job = running();
        let mut seen = Seen::default();
        let mut before = sample::job(plan(&FLEET));
        before.header.started_at = None;
        let first = view(&before, &[], 0);
        seen.note(None, &first);
        let now = view(&job, &[], 41);
        seen.note(Some(&first), &now);
        insta::assert_snapshot!(draw(&now, &seen, 24), @r"
        Job j-01c9d4aabbcc · rollback-service@1 · by user/mei · running
        ✔ wave 1 canary  1/1   ap-south/prod-1   0s
        ▾ wave 2 half  1/2
          ✔ ap-south/prod-2  changed  0s
          ◐ eu-west/prod-1   running     step 4/5 wait_rollout  0s
        ○ wave 3 rest  0/3   eu-west/prod-2, us-east/prod-1, us-east/prod-2
        ─ 2 done · 1 running · 3 waiting · 0 failed ─ elapsed 41s ─ Ctrl-C detaches
        ");
    }

    #[test]
    fn what_an_agent_that_is_away_does_is_not_called_running() {
        let job = running();
        let absent = WaitingOn::AgentAbsent {
            target: target("eu-west/prod-1"),
            since: sample::NOW,
        };
        let drawn = draw(&view(&job, &[absent], 60), &Seen::default(), 24);
        insta::assert_snapshot!(drawn, @r"
        Job j-01c9d4aabbcc · rollback-service@1 · by user/mei · running
        ✔ wave 1 canary  1/1   ap-south/prod-1
        ▾ wave 2 half  1/2
          ✔ ap-south/prod-2  changed
          ? eu-west/prod-1   absent      its agent is away; last known: step 4/5 wait_rollout
        ○ wave 3 rest  0/3   eu-west/prod-2, us-east/prod-1, us-east/prod-2
        … waits for the agent of eu-west/prod-1, absent   aldis agents show eu-west/prod-1
        ─ 2 done · 0 running · 3 waiting · 0 failed · 1 unknown ─ elapsed 1m00s ─ Ctrl-C detaches
        ");
    }

    #[test]
    fn a_soak_says_how_long_it_lasts() {
        let mut job = sample::job(plan(&FLEET));
        put(
            &mut job,
            "ap-south/prod-1",
            TargetState::Rest(Rest::Changed),
        );
        let soak = |unread: &[(&str, &str)]| WaitingOn::Soak {
            wave: 0,
            left: Duration::from_secs(23),
            unread: unread
                .iter()
                .map(|(name, why)| (target(name), (*why).to_owned()))
                .collect(),
        };
        let calm = draw(&view(&job, &[soak(&[])], 60), &Seen::default(), 24);
        assert!(calm.contains("\n◐ soak  23s left\n"), "{calm}");
        let blind = soak(&[("ap-south/prod-1", "its agent is away")]);
        let blind = draw(&view(&job, &[blind], 60), &Seen::default(), 24);
        let said = "◐ soak  not counted: cannot read ap-south/prod-1 (its agent is away)";
        assert!(blind.contains(said), "{blind}");
    }

    #[test]
    fn going_back_names_the_cause_and_the_failed_target() {
        let mut job = running();
        let cause = StopCause::Budget {
            failed: 1,
            unknown: 0,
            budget: 0,
        };
        job.header.state = JobState::Unwinding { cause };
        fail(
            &mut job,
            "eu-west/prod-1",
            "wait_rollout",
            image_gone(),
            TargetState::Undoing,
        );
        step(&mut job, "eu-west/prod-1", "rollback", StepState::Undone);
        let agent = WaitingOn::Agent {
            target: target("eu-west/prod-1"),
            segment: 1,
            direction: Direction::Undo,
            parked: false,
        };
        let drawn = draw(&view(&job, &[agent], 60), &Seen::default(), 24);
        insta::assert_snapshot!(drawn, @r"
        Job j-01c9d4aabbcc · rollback-service@1 · by user/mei · going back
        ! going back: 1 failed and 0 unknown, more than the 0 that `maxFailures` accepts
        ○ wave 1 canary  0/1   ap-south/prod-1
        ▾ wave 2 half  0/2
          ↩ ap-south/prod-2  changed     to be put back
          ◐ eu-west/prod-1   going back  wait_rollout failed, 1 step undone
        ○ wave 3 rest  0/3   eu-west/prod-2, us-east/prod-1, us-east/prod-2
        ─ 0 done · 1 running · 5 waiting · 0 failed ─ elapsed 1m00s ─ Ctrl-C detaches
        ");
    }

    #[test]
    fn a_large_wave_is_counted_by_region_and_trouble_is_named() {
        let names: Vec<String> = (0..600)
            .map(|n| format!("{}/c{n:03}", ["ap-south", "eu-west", "us-east"][n % 3]))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut plan = plan(&names);
        plan.parts.insert(target("eu-west/c301"), {
            let mut part = part("eu-west/c301");
            part.simulated = true;
            part
        });
        let mut job = sample::job(plan);
        job.header.wave = 1;
        for name in &names {
            put(&mut job, name, TargetState::Running { segment: 0 });
        }
        put(&mut job, "ap-south/c000", TargetState::Rest(Rest::Changed));
        let needs = TargetState::Rest(Rest::NeedsOperator {
            why: "not helped".into(),
        });
        fail(
            &mut job,
            "ap-south/c003",
            "wait_rollout",
            image_gone(),
            needs,
        );
        let lost = TargetState::Unknown {
            direction: Direction::Forward,
            segment: 1,
            evidence: vec!["no word for 11m".into()],
        };
        put(&mut job, "eu-west/c301", lost);
        let drawn = draw(&view(&job, &[], 60), &Seen::default(), 16);
        insta::assert_snapshot!(drawn, @r"
        Job j-01c9d4aabbcc · rollback-service@1 · by user/mei · running · with simulated targets
        ✔ wave 1 canary  1/1   ap-south/c000
        ▾ wave 2 half  0/299
          ap-south  0/199 done · 198 running · 1 failed
          eu-west   0/100 done · 100 running
          ✘ ap-south/c003  needs operator not helped: wait_rollout: Deployment shop/checkout: 7 of 12 pods ready, not progressing for 120s (limit 120s)
          ◐ ap-south/c006  running
          ◐ ap-south/c009  running
          ◐ ap-south/c012  running
          ◐ ap-south/c015  running
          ◐ ap-south/c018  running
        ▾ wave 3 rest  0/300
          eu-west  0/100 done · 99 running · 1 unknown
          us-east  0/200 done · 200 running
          ? eu-west/c301 (simulated)  unknown     no word for 11m
        ─ 1 done · 597 running · 0 waiting · 1 failed · 1 unknown ─ elapsed 1m00s ─ Ctrl-C detaches
        ");
    }
}
