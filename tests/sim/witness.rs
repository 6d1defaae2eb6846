//! Who sees everything and takes no part: each write of the store, each order on its way, each effect in
//! a cluster. What is promised of a whole history is held here, from what happened and not from what the
//! programs say of it.
//!
//! | promise | held when |
//! |---|---|
//! | ONE-WRITER | a leader's write is applied: its writer is the leader of that moment |
//! | COMMIT-FIRST | an order leaves a replica, an effect lands: its attempt was committed, under that fence |
//! | RECONCILE-FIRST | an order or permit leaves a replica: that session's list was merged |
//! | AT-MOST-ONCE | an effect lands: none of the same step, attempt and direction did |
//! | STOP-MEANS-STOP | an agent sends a change: its job has not ended |
//! | no step twice | a step's effect lands: it stands for no other attempt of the job |
//! | ORDER | a step's effect lands: those of the steps before it stand |
//! | NO-LOST-JOB | a submission is acknowledged, and at each write after it |
//! | exactly one rest per target | a job ends: each target rests in one way, which is what its cluster shows |
//! | waves, barriers, budget, … | a record of a job is written: [`aldis_core::check`] |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aldis_control_plane::leadership::Leader;
use aldis_control_plane::records::{self, Ended, PlanPart, Session};
use aldis_control_plane::store::keys::Name;
use aldis_control_plane::store::{Commit, Key, Record, Revision, Write, keys};
use aldis_core::assignments::Order;
use aldis_core::check;
use aldis_core::ids::{Attempt, Fence, JobId, PlanId, StepId, TargetName};
use aldis_core::job::{Direction, Header, Job, Rest, Target, TargetState, Verdict};
use aldis_core::plan::Plan;
use tokio_util::bytes::Bytes;

use crate::history::History;

/// A process that writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) replica: String,
    pub(crate) boot_id: String,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.replica, self.boot_id)
    }
}

/// One effect in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Effect {
    pub(crate) job: JobId,
    pub(crate) target: TargetName,
    pub(crate) step: StepId,
    pub(crate) direction: Direction,
    pub(crate) attempt: Attempt,
}

/// The witness.
pub(crate) struct Witness {
    history: History,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    plans: BTreeMap<PlanId, Arc<Plan>>,
    jobs: BTreeMap<JobId, Job>,
    ended: BTreeMap<JobId, Job>,
    acknowledged: BTreeSet<JobId>,
    committed: BTreeSet<(JobId, TargetName, Attempt, Fence)>,
    merged: BTreeSet<(TargetName, u64, Fence)>,
    sessions: BTreeMap<TargetName, Session>,
    landed: BTreeSet<Effect>,
    /// Steps whose effect stands, with the attempt that made it.
    standing: BTreeMap<(JobId, TargetName, StepId), Attempt>,
    /// Targets of which an operator said something that was not so.
    misjudged: BTreeSet<(JobId, TargetName)>,
}

/// A promise is broken: the story ends here.
#[track_caller]
fn must(holds: bool, promise: &str, what: impl FnOnce() -> String) {
    assert!(holds, "{promise}: {}", what());
}

fn parse<T: records::Layout>(key: &Key, value: &Bytes) -> T {
    let at = Revision(0);
    let record = Record::new(key.clone(), value.clone(), at, at);
    records::read(&record).unwrap_or_else(|error| panic!("{error}"))
}

impl Witness {
    pub(crate) fn new(history: History) -> Self {
        let seen = Mutex::default();
        Self { history, seen }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan that was shown to somebody.
    pub(crate) fn planned(&self, plan: Plan) {
        self.seen().plans.insert(plan.id.clone(), Arc::new(plan));
    }

    /// A submission was answered.
    pub(crate) fn acknowledged(&self, job: &JobId) {
        let mut seen = self.seen();
        seen.acknowledged.insert(job.clone());
        seen.nothing_lost();
    }

    /// A write was applied.
    pub(crate) fn committed(&self, writer: &Writer, leader: Option<&Record>, commit: &Commit) {
        let leader: Option<Leader> =
            leader.and_then(|record| serde_json::from_slice(&record.value).ok());
        let leads = leader.is_some_and(|leader| leader.boot_id == writer.boot_id);
        let mut seen = self.seen();
        let before = seen.jobs.clone();
        for write in &commit.writes {
            let leaders_own = seen.take(write);
            must(leads || !leaders_own, "ONE-WRITER", || {
                format!("{writer} wrote {} and does not lead", write.key())
            });
        }
        for (id, after) in &seen.jobs {
            if let Some(before) = before.get(id)
                && !same(before, after)
            {
                self.tell(writer, before, after);
                let kept = check::written(before, after);
                kept.unwrap_or_else(|broken| panic!("{broken} ({writer})"));
            }
        }
        seen.nothing_lost();
    }

    fn tell(&self, writer: &Writer, before: &Job, after: &Job) {
        let (was, is) = (&before.header, &after.header);
        if was.state != is.state {
            self.history.say(format!("{writer}: job is {:?}", is.state));
        }
        if was.wave != is.wave {
            self.history.say(format!("{writer}: wave {}", is.wave));
        }
        for (name, target) in &after.targets {
            let known = before.targets.get(name);
            if known.is_none_or(|known| known != target) {
                self.history.say(format!(
                    "{writer}: {name} #{} {:?} {}",
                    target.attempt,
                    target.state,
                    steps(target)
                ));
            }
        }
    }

    /// A replica sends an order on the stream of a session.
    pub(crate) fn ordered(&self, order: &Order, generation: u64) {
        let seen = self.seen();
        let attempt = (
            order.job.clone(),
            order.target.clone(),
            order.attempt,
            order.fence,
        );
        must(seen.committed.contains(&attempt), "COMMIT-FIRST", || {
            format!("{order:?} was never committed")
        });
        let session = (order.target.clone(), generation, order.fence);
        must(seen.merged.contains(&session), "RECONCILE-FIRST", || {
            format!("{order:?} before the list of session {generation} was merged")
        });
    }

    /// A replica grants a permit on the stream of a session.
    pub(crate) fn permitted(&self, target: &TargetName, generation: u64) {
        let seen = self.seen();
        let merged = |(of, at, _): &&(TargetName, u64, Fence)| of == target && *at == generation;
        let merged = seen.merged.iter().any(|session| merged(&session));
        must(merged, "RECONCILE-FIRST", || {
            format!("a permit for {target} before session {generation} was merged")
        });
    }

    /// An agent sends a request that changes something.
    pub(crate) fn begins(&self, effect: &Effect) {
        let ended = self.seen().ended.contains_key(&effect.job);
        must(!ended, "STOP-MEANS-STOP", || {
            format!("{effect:?} begins after the end of its job")
        });
    }

    /// An effect lands in a cluster.
    pub(crate) fn landed(&self, effect: Effect) {
        self.history.say(format!(
            "{}: {} of {} lands, {:?} #{}",
            effect.target,
            effect.step,
            effect.job.short(),
            effect.direction,
            effect.attempt
        ));
        let mut seen = self.seen();
        let committed = seen.committed.iter().any(|(job, target, attempt, _)| {
            (job, target, attempt) == (&effect.job, &effect.target, &effect.attempt)
        });
        must(committed, "COMMIT-FIRST", || {
            format!("{effect:?} of no attempt")
        });
        must(seen.landed.insert(effect.clone()), "AT-MOST-ONCE", || {
            format!("{effect:?} landed twice")
        });
        let place = (
            effect.job.clone(),
            effect.target.clone(),
            effect.step.clone(),
        );
        match effect.direction {
            Direction::Undo => {
                seen.standing.remove(&place);
            }
            Direction::Forward => {
                seen.in_order(&effect);
                let before = seen.standing.insert(place, effect.attempt);
                must(before.is_none(), "no step twice", || {
                    format!("{effect:?} landed over that of attempt {before:?}")
                });
            }
        }
    }

    /// The job as written last, hot or ended.
    pub(crate) fn job(&self, id: &JobId) -> Option<Job> {
        let seen = self.seen();
        seen.jobs.get(id).or_else(|| seen.ended.get(id)).cloned()
    }

    /// Whether a step's effect stands in its cluster.
    pub(crate) fn stands(&self, job: &JobId, target: &TargetName, step: &StepId) -> bool {
        let place = (job.clone(), target.clone(), step.clone());
        self.seen().standing.contains_key(&place)
    }

    /// A person put a step back.
    pub(crate) fn put_back(&self, job: &JobId, target: &TargetName, step: &StepId) {
        let place = (job.clone(), target.clone(), step.clone());
        self.seen().standing.remove(&place);
    }

    /// At the end of a story: each target rests in exactly one way, and its cluster shows that way.
    pub(crate) fn rests(&self, id: &JobId) {
        let seen = self.seen();
        let job = &seen.ended[id];
        for name in job.plan.scope.selection.keys() {
            let target = job.target(name);
            let standing = |(of, at, _): &&(JobId, TargetName, StepId)| of == id && at == name;
            let stands = seen.standing.keys().any(|place| standing(&place));
            let touched = seen
                .landed
                .iter()
                .any(|e| e.job == *id && e.target == *name);
            let honest = match &target.state {
                TargetState::Rest(Rest::Changed) => stands,
                TargetState::Rest(Rest::Restored) => !stands,
                TargetState::Rest(Rest::Untouched) | TargetState::NotStarted => {
                    !stands && (!touched || target.attempt > Attempt(0))
                }
                TargetState::Rest(Rest::NeedsOperator { .. }) => true,
                _ => false,
            };
            let misjudged = seen.misjudged.contains(&(id.clone(), name.clone()));
            // An agent that stays away is not waited for for ever: until it is heard, the rest is the operator's word.
            let on_their_word = target
                .resolutions
                .iter()
                .any(|said| said.verdict == Verdict::NotDone && said.unheard.is_some());
            let excused = misjudged || on_their_word;
            must(honest || excused, "exactly one rest per target", || {
                format!("{name} rests as {:?}, effects: {stands}", target.state)
            });
        }
    }
}

fn same(before: &Job, after: &Job) -> bool {
    before.header == after.header && before.targets == after.targets
}

fn steps(target: &Target) -> String {
    let state = |state| format!("{state:?}").chars().take(24).collect::<String>();
    let steps = target.steps.iter();
    let steps: Vec<String> = steps
        .map(|(id, is)| format!("{id}={}", state(is)))
        .collect();
    steps.join(" ")
}

impl Seen {
    /// Takes one write in; true where only the leader may make it.
    fn take(&mut self, write: &Write) -> bool {
        let key = write.key();
        let value = match write {
            Write::Put { value, .. } => Some(value),
            Write::Delete { .. } => None,
        };
        match (key.name(), value) {
            (Some(Name::JobHeader { .. }), Some(value)) => self.header(parse(key, value)),
            (Some(Name::JobHeader { job }), None) => {
                // Its other records follow; what it was is under `ended`, or it is lost.
                self.jobs.remove(&JobId::new(job));
                true
            }
            (Some(Name::JobTarget { job, .. }), Some(value)) => {
                self.target(&JobId::new(job), parse(key, value))
            }
            (Some(Name::JobTarget { .. } | Name::JobRequest { .. }), None) => true,
            (Some(Name::Session { target }), Some(value)) => {
                let target = target.parse().expect("a target's name");
                self.session(&target, parse(key, value))
            }
            (Some(Name::Lock { .. }), _) => true,
            (Some(Name::PlanPart { .. }), Some(value)) => self.late_part(parse(key, value)),
            _ if key.as_str().starts_with(keys::ENDED) => {
                value.is_none_or(|value| self.end(parse(key, value)))
            }
            _ => false,
        }
    }

    fn header(&mut self, header: Header) -> bool {
        if let Some(job) = self.jobs.get_mut(&header.id) {
            job.header = header;
            return true;
        }
        let known = self.ended.contains_key(&header.id);
        must(!known, "ONE-SUBMIT", || format!("{} twice", header.id));
        let plan = self.plans[&header.plan].clone();
        let (late_parts, targets) = (BTreeMap::new(), BTreeMap::new());
        let id = header.id.clone();
        let job = Job {
            header,
            plan,
            late_parts,
            targets,
        };
        self.jobs.insert(id, job);
        false
    }

    fn target(&mut self, job: &JobId, target: Target) -> bool {
        if let Some(commitment) = &target.commitment {
            let name = target.name.clone();
            let attempt = (job.clone(), name, target.attempt, commitment.fence);
            self.committed.insert(attempt);
        }
        let Some(job) = self.jobs.get_mut(job) else {
            // A report that crossed the job's end: it changes what is about to be cleared away.
            return false;
        };
        let name = target.name.clone();
        let before = job.targets.insert(name, Arc::new(target.clone()));
        // Whoever holds the agent's stream writes what it reports, and nothing else.
        before.is_none_or(|before| {
            before.attempt != target.attempt || before.commitment != target.commitment
        })
    }

    fn session(&mut self, target: &TargetName, session: Session) -> bool {
        let before = self.sessions.insert(target.clone(), session.clone());
        let Some(fence) = session.merged else {
            return false;
        };
        let news = (target.clone(), session.generation, fence);
        self.merged.insert(news) && before.is_none_or(|before| before.merged != Some(fence))
    }

    fn late_part(&mut self, part: PlanPart) -> bool {
        for job in self.jobs.values_mut().filter(|_| part.late) {
            let part = part.part.clone();
            job.late_parts.insert(part.target.clone(), part);
        }
        part.late
    }

    /// Whether it is the end itself, which is the leader's. What an agent tells after it is written beside it by the
    /// replica that heard it, as any report is.
    fn end(&mut self, ended: Ended) -> bool {
        let plan = self.plans[&ended.header.plan].clone();
        let late_parts = BTreeMap::new();
        let targets = ended.targets.into_iter();
        let targets = targets.map(|(name, target)| (name, Arc::new(target)));
        let id = ended.header.id.clone();
        let job = Job {
            header: ended.header,
            plan,
            late_parts,
            targets: targets.collect(),
        };
        self.ended.insert(id, job).is_none()
    }

    fn nothing_lost(&self) {
        for id in &self.acknowledged {
            let known = self.jobs.contains_key(id) || self.ended.contains_key(id);
            must(known, "NO-LOST-JOB", || format!("{id} is in no record"));
        }
    }

    /// The steps that write before this one stand, where they were to run.
    fn in_order(&self, effect: &Effect) {
        let Some(job) = self.jobs.get(&effect.job) else {
            return;
        };
        let segments = &job.plan.phase().segments;
        let steps = segments.iter().flat_map(|segment| &segment.steps);
        let writes = steps
            .filter(|planned| planned.step.uses.effect() != aldis_core::action::Effect::Read)
            .map(|planned| &planned.step.id)
            .take_while(|id| **id != effect.step);
        for step in writes {
            let place = (effect.job.clone(), effect.target.clone(), step.clone());
            must(self.standing.contains_key(&place), "ORDER", || {
                format!("{effect:?} landed before `{step}`")
            });
        }
    }
}
