//! A practice cluster whose calls can be held up at one point, answered by a test, and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aldis_core::plan::ClusterIdentity;
use async_trait::async_trait;
use tokio::sync::Notify;

use crate::actions::simulated::Simulated;
use crate::actions::{
    Actions, Applied, Before, Call, Effect, Observed, Planned, Progress, Trouble,
};
use crate::ledger::Ledger;

/// Where a call can be held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before the prior state is read: no intent is written.
    Capture,
    /// The intent is written; the effect has not begun.
    BeforeEffect,
    /// The effect is there; nobody has heard of it.
    AfterEffect,
    /// Before a step reads.
    Reading,
    /// Before an undo.
    BeforeUndo,
    /// After an undo.
    AfterUndo,
}

type Scripted<T> = VecDeque<Result<T, Trouble>>;

pub(crate) struct Hooked {
    inner: Arc<Simulated>,
    state: Mutex<State>,
    there: Notify,
    released: Notify,
    looked: Notify,
}

#[derive(Default)]
struct State {
    hang_at: Option<Point>,
    /// Where calls panic, and how many.
    panic_at: Option<(Point, u32)>,
    ledger: Option<Ledger>,
    calls: Vec<String>,
    looked_for: Vec<serde_json::Value>,
    apply: Scripted<Applied>,
    observe: Scripted<Observed>,
    identity: Option<ClusterIdentity>,
    explains: Vec<String>,
}

impl Hooked {
    pub(crate) fn over(inner: Arc<Simulated>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
            there: Notify::new(),
            released: Notify::new(),
            looked: Notify::new(),
        }
    }

    /// Checks from here on that intents are in this journal before effects begin.
    pub(crate) fn watch(&self, ledger: Ledger) {
        self.state.lock().unwrap().ledger = Some(ledger);
    }

    /// Breaks the next calls at this point.
    pub(crate) fn panic_at(&self, point: Point, times: u32) {
        self.state.lock().unwrap().panic_at = Some((point, times));
    }

    /// Lets what hangs go on.
    pub(crate) fn release(&self) {
        self.state.lock().unwrap().hang_at = None;
        self.released.notify_one();
    }

    /// Returns when an effect was looked for, by what was captured.
    pub(crate) async fn looked(&self) {
        self.looked.notified().await;
    }

    /// Holds the next call at this point, for ever or until it is released.
    pub(crate) fn hang_at(&self, point: Point) {
        self.state.lock().unwrap().hang_at = Some(point);
    }

    /// Returns when a call hangs.
    pub(crate) async fn hangs(&self) {
        self.there.notified().await;
    }

    /// Nothing hangs any more, and the journal can be opened by another.
    pub(crate) fn let_go(&self) {
        let mut state = self.state.lock().unwrap();
        state.hang_at = None;
        state.ledger = None;
    }

    /// Answers the next effect with this, instead of making it.
    pub(crate) fn answer_apply(&self, answer: Result<Applied, Trouble>) {
        self.state.lock().unwrap().apply.push_back(answer);
    }

    /// Answers the next looks with these.
    pub(crate) fn answer_observe(&self, answer: Result<Observed, Trouble>) {
        self.state.lock().unwrap().observe.push_back(answer);
    }

    /// Says so, when it is asked what ails that which was read.
    pub(crate) fn explain_by(&self, line: &str) {
        self.state.lock().unwrap().explains = vec![line.to_owned()];
    }

    /// Is another cluster from here on.
    pub(crate) fn become_another(&self) {
        self.state.lock().unwrap().identity = Some(ClusterIdentity {
            cluster_uid: "another".into(),
            ca_fingerprint: "another".into(),
        });
    }

    /// Every call that may change something, in order: `apply set`, `fence set`, `undo set`.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Inputs of the calls that were looked for since [`Hooked::forget`].
    pub(crate) fn looked_for(&self) -> Vec<serde_json::Value> {
        self.state.lock().unwrap().looked_for.clone()
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap().looked_for.clear();
    }

    fn note(&self, what: &str, call: &Call) {
        let mut state = self.state.lock().unwrap();
        state.calls.push(format!("{what} {}", call.stamp.step));
        if let Some(ledger) = &state.ledger {
            let open = ledger.read(|attempts| {
                attempts
                    .open_intents()
                    .any(|open| open.step == call.stamp.step.as_str())
            });
            assert!(open, "`{what}` before its intent is on disk");
        }
    }

    async fn reach(&self, point: Point) {
        if self.breaks(point) {
            panic!("broken on purpose");
        }
        let hangs = self.state.lock().unwrap().hang_at == Some(point);
        if hangs {
            self.there.notify_one();
            self.released.notified().await;
        }
    }

    fn breaks(&self, at: Point) -> bool {
        let mut state = self.state.lock().unwrap();
        match &mut state.panic_at {
            Some((point, times)) if *point == at && *times > 0 => {
                *times -= 1;
                true
            }
            Some(_) | None => false,
        }
    }
}

fn writes(call: &Call) -> bool {
    call.action.effect() != aldis_core::action::Effect::Read
}

#[async_trait]
impl Actions for Hooked {
    async fn identity(&self) -> Result<ClusterIdentity, Trouble> {
        let other = self.state.lock().unwrap().identity.clone();
        match other {
            Some(other) => Ok(other),
            None => self.inner.identity().await,
        }
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Trouble> {
        self.inner.plan(call).await
    }

    async fn capture(&self, call: &Call) -> Result<Before, Trouble> {
        self.reach(Point::Capture).await;
        self.inner.capture(call).await
    }

    async fn apply(
        &self,
        call: &Call,
        before: &Before,
        progress: &Progress,
    ) -> Result<Applied, Trouble> {
        if !writes(call) {
            self.reach(Point::Reading).await;
            return self.inner.apply(call, before, progress).await;
        }
        self.note("apply", call);
        self.reach(Point::BeforeEffect).await;
        let scripted = self.state.lock().unwrap().apply.pop_front();
        if let Some(answer) = scripted {
            return answer;
        }
        let applied = self.inner.apply(call, before, progress).await;
        self.reach(Point::AfterEffect).await;
        applied
    }

    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble> {
        let input = call.with.clone();
        self.state.lock().unwrap().looked_for.push(input);
        // The look before a first effect is not the one that tests script.
        let scripted = match before {
            Some(_) => self.state.lock().unwrap().observe.pop_front(),
            None => None,
        };
        let answer = match scripted {
            Some(answer) => answer,
            None => self.inner.observe(call, before).await,
        };
        if before.is_some() {
            self.looked.notify_one();
        }
        answer
    }

    async fn fence(&self, call: &Call, before: Option<&Before>) -> Result<(), Trouble> {
        let called = format!("fence {}", call.stamp.step);
        self.state.lock().unwrap().calls.push(called);
        self.inner.fence(call, before).await
    }

    async fn undo(&self, call: &Call, effect: &Effect, progress: &Progress) -> Result<(), Trouble> {
        self.note("undo", call);
        self.reach(Point::BeforeUndo).await;
        let undone = self.inner.undo(call, effect, progress).await;
        self.reach(Point::AfterUndo).await;
        undone
    }

    async fn explain(&self, _call: &Call) -> Vec<String> {
        self.state.lock().unwrap().explains.clone()
    }
}
