//! One segment, try by try, with a clock that stands where a test puts it.

use super::*;
use crate::assignments::{Order, Wanted};
use crate::ids::{Attempt, Digest, Fence};
use crate::job::Direction;
use crate::plan::{ClusterIdentity, Disposition, RunbookRef, TargetPart};
use serde_json::json;

fn step_of(part: StepPart, id: &str, uses: &str, more: Value) -> SegmentStep {
    let mut written = json!({"id": id, "use": uses, "with": {"deployment": "shop"}});
    if let (Value::Object(written), Value::Object(more)) = (&mut written, more) {
        written.extend(more);
    }
    SegmentStep {
        part,
        step: serde_json::from_value(written).unwrap(),
    }
}

fn step(id: &str, uses: &str, more: Value) -> SegmentStep {
    step_of(StepPart::Main, id, uses, more)
}

/// A step that writes.
fn write(id: &str, more: Value) -> SegmentStep {
    step(id, "kube.set-image", more)
}

/// A step that reads.
fn read(id: &str, more: Value) -> SegmentStep {
    step(id, "kube.get", more)
}

fn assignment(steps: Vec<SegmentStep>) -> Assignment {
    let target: crate::ids::TargetName = "eu-west/prod-1".parse().unwrap();
    let identity = ClusterIdentity {
        cluster_uid: "u".into(),
        ca_fingerprint: "f".into(),
    };
    Assignment {
        format: Assignment::FORMAT,
        order: Order {
            job: "j-1".into(),
            target: target.clone(),
            attempt: Attempt(1),
            fence: Fence::default(),
            journal: "a".into(),
            direction: Direction::Forward,
            segment: 0,
            wanted: Wanted::Go,
        },
        runbook: RunbookRef {
            name: "r".into(),
            version: 1,
            digest: Digest::new("d"),
        },
        plan_digest: Digest::new("d"),
        params: json!({"image": "shop:v2"}),
        labels: BTreeMap::new(),
        part: TargetPart {
            target,
            identity,
            simulated: false,
            disposition: Disposition::Run,
            steps: vec![],
            warnings: vec![],
            left: None,
        },
        steps,
        known: BTreeMap::new(),
        trace: None,
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn done(outputs: Value, changed: bool) -> TryResult {
    TryResult::Done { outputs, changed }
}

fn succeeded(outputs: Value, changed: bool) -> StepState {
    StepState::Succeeded { outputs, changed }
}

fn changed() -> StepState {
    succeeded(json!({}), true)
}

fn failure() -> Failure {
    Failure::new("unavailable", "the API server does not answer")
}

fn retriable() -> TryResult {
    TryResult::Retriable { failure: failure() }
}

/// One assignment with what is known of it.
struct Run {
    assignment: Assignment,
    progress: Progress,
}

impl Run {
    fn of(steps: Vec<SegmentStep>) -> Self {
        Self {
            assignment: assignment(steps),
            progress: Progress::default(),
        }
    }

    fn knowing(mut self, id: &str, state: StepState) -> Self {
        self.assignment.known.insert(id.into(), state);
        self
    }

    fn next(&self, at: Duration) -> Next {
        advance(&self.assignment, &self.progress, at)
    }

    /// The next move, which is a try.
    fn try_at(&self, at: Duration) -> Try {
        match self.next(at) {
            Next::Try(next) => next,
            other => panic!("{other:?}"),
        }
    }

    fn finished(&self) -> SegmentOutcome {
        match self.next(s(0)) {
            Next::Finished(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// A try of `id` from `began` to `now` ends like this.
    fn ends(&mut self, id: &str, result: TryResult, began: Duration, now: Duration) -> StepState {
        let id = StepId::from(id);
        let after = conclude(&self.assignment, &self.progress, &id, result, began, now);
        let state = after.state.clone();
        self.progress.steps.insert(id, after);
        state
    }

    fn before(&self, id: &str) -> Option<StepState> {
        before_try(&self.assignment, &self.progress, &id.into())
    }
}

fn failed_of(state: &StepState) -> (&Failure, bool) {
    match state {
        StepState::Failed { failure, applied } => (failure, *applied),
        other => panic!("{other:?}"),
    }
}

fn is_running(state: &StepState) -> bool {
    matches!(state, StepState::Running { .. })
}

mod forward {
    use super::*;

    #[test]
    fn a_segment_without_steps_has_succeeded() {
        assert_eq!(Run::of(vec![]).finished(), SegmentOutcome::Succeeded);
    }

    #[test]
    fn the_first_try_has_its_input_and_all_of_its_time() {
        let run = Run::of(vec![write(
            "a",
            json!({"with": {"image": "${params.image}"}, "timeout": "90s"}),
        )]);
        let next = run.try_at(s(7));
        assert_eq!(next.with, json!({"image": "shop:v2"}));
        assert_eq!(next.action, Action::KubeSetImage);
        assert_eq!((next.number, next.timeout), (1, s(90)));
        assert!(next.at_safe_point);
    }

    #[test]
    fn a_step_without_a_timeout_has_two_minutes() {
        let run = Run::of(vec![read("a", json!({}))]);
        assert_eq!(run.try_at(s(0)).timeout, s(120));
    }

    #[test]
    fn steps_run_in_order_and_read_what_came_before() {
        let second = json!({"with": {"image": "${steps.a.outputs.image}"}});
        let mut run = Run::of(vec![read("a", json!({})), write("b", second)]);
        assert_eq!(run.try_at(s(0)).step.as_str(), "a");
        run.ends("a", done(json!({"image": "shop:v9"}), false), s(0), s(1));
        let next = run.try_at(s(1));
        assert_eq!(next.step.as_str(), "b");
        assert_eq!(next.with, json!({"image": "shop:v9"}));
        run.ends("b", done(json!({}), true), s(1), s(2));
        assert_eq!(run.finished(), SegmentOutcome::Succeeded);
    }

    #[test]
    fn what_an_earlier_segment_read_is_known() {
        let of_before = json!({"with": {"image": "${steps.old.outputs.image}"}});
        let run = Run::of(vec![write("b", of_before)])
            .knowing("old", succeeded(json!({"image": "shop:v1"}), false));
        assert_eq!(run.try_at(s(0)).with, json!({"image": "shop:v1"}));
    }

    #[test]
    fn a_step_done_in_an_earlier_attempt_is_not_done_again() {
        let run =
            Run::of(vec![write("a", json!({})), write("b", json!({}))]).knowing("a", changed());
        assert_eq!(run.try_at(s(0)).step.as_str(), "b");
    }

    #[test]
    fn a_step_that_failed_here_ends_the_segment() {
        let mut run = Run::of(vec![write("a", json!({})), write("b", json!({}))]);
        let result = TryResult::Failed {
            failure: failure(),
            applied: true,
        };
        run.ends("a", result, s(0), s(1));
        let (step, failure) = ("a".into(), failure());
        assert_eq!(run.finished(), SegmentOutcome::Failed { step, failure });
    }

    #[test]
    fn a_step_that_failed_in_an_earlier_attempt_is_tried_again() {
        let earlier = StepState::Failed {
            failure: failure(),
            applied: false,
        };
        let run = Run::of(vec![write("a", json!({}))]).knowing("a", earlier);
        assert_eq!(run.try_at(s(0)).number, 1);
    }

    #[test]
    fn an_unknown_step_ends_the_segment_wherever_it_came_from() {
        let evidence = vec!["no answer".to_owned()];
        let unknown = StepState::Unknown {
            evidence: evidence.clone(),
        };
        let step = StepId::from("a");
        let expected = SegmentOutcome::Unknown {
            step,
            evidence: evidence.clone(),
        };
        let earlier = Run::of(vec![write("a", json!({}))]).knowing("a", unknown);
        assert_eq!(earlier.finished(), expected);
        let mut here = Run::of(vec![write("a", json!({}))]);
        here.ends("a", TryResult::Unknown { evidence }, s(0), s(1));
        assert_eq!(here.finished(), expected);
    }

    #[test]
    fn input_that_does_not_resolve_fails_the_step_by_name() {
        let of_nothing = json!({"with": {"image": "${steps.gone.outputs.image}"}});
        let run = Run::of(vec![write("a", of_nothing)]);
        let SegmentOutcome::Failed { step, failure } = run.finished() else {
            panic!()
        };
        assert_eq!((step.as_str(), failure.kind.as_str()), ("a", "expression"));
        assert!(failure.cause.contains("`with` of `a`"), "{failure}");
    }
}

mod safe_points {
    use super::*;

    #[test]
    fn a_target_may_rest_after_each_step_that_does_not_say_otherwise() {
        let run = |safe: bool| {
            let mut run = Run::of(vec![
                write("a", json!({"safePoint": safe})),
                write("b", json!({})),
            ]);
            run.ends("a", done(json!({}), true), s(0), s(1));
            run.try_at(s(1)).at_safe_point
        };
        assert!(run(true));
        assert!(!run(false));
    }

    #[test]
    fn a_step_that_was_left_out_makes_no_place_unsafe() {
        let run = Run::of(vec![
            write("a", json!({"safePoint": false})),
            write("b", json!({})),
        ])
        .knowing("a", StepState::Skipped { why: "if".into() });
        assert!(run.try_at(s(0)).at_safe_point);
    }

    #[test]
    fn a_step_that_was_left_out_makes_no_place_safe() {
        let skipped = StepState::Skipped { why: "if".into() };
        let run = Run::of(vec![
            write("a", json!({"safePoint": false})),
            write("b", json!({})),
            write("c", json!({})),
        ])
        .knowing("a", changed())
        .knowing("b", skipped);
        assert!(!run.try_at(s(0)).at_safe_point);
    }

    #[test]
    fn nobody_rests_between_two_tries() {
        let mut run = Run::of(vec![read("a", json!({"retry": {"max": 3}}))]);
        run.ends("a", retriable(), s(0), s(1));
        assert!(!run.try_at(s(60)).at_safe_point);
    }
}

mod conditions {
    use super::*;

    #[test]
    fn a_step_without_a_condition_or_whose_condition_holds_is_tried() {
        let run = Run::of(vec![
            write("a", json!({})),
            write("b", json!({"if": "params.image == 'shop:v2'"})),
        ]);
        assert_eq!(run.before("a"), None);
        assert_eq!(run.before("b"), None);
        assert_eq!(run.before("unheard"), None);
    }

    #[test]
    fn a_step_whose_condition_does_not_hold_is_skipped_and_says_which() {
        let run = Run::of(vec![write("a", json!({"if": "params.image == ''"}))]);
        let why = "`if: params.image == ''` does not hold".to_owned();
        assert_eq!(run.before("a"), Some(StepState::Skipped { why }));
    }

    #[test]
    fn a_condition_that_cannot_be_judged_fails_the_step_before_anything_began() {
        for condition in ["steps.gone.outputs.x == 1", "params.image"] {
            let run = Run::of(vec![write("a", json!({"if": condition}))]);
            let state = run.before("a").unwrap();
            let (failure, applied) = failed_of(&state);
            assert_eq!((failure.kind.as_str(), applied), ("expression", false));
        }
    }

    #[test]
    fn a_step_that_its_condition_leaves_out_needs_no_input() {
        let of_nothing =
            json!({"if": "false", "with": {"deployment": "${steps.gone.outputs.name}"}});
        let run = Run::of(vec![write("a", of_nothing)]);
        assert_eq!(run.try_at(s(0)).with, Value::Null);
        assert!(matches!(run.before("a"), Some(StepState::Skipped { .. })));
    }

    #[test]
    fn a_requirement_that_holds_is_a_success_with_its_outputs() {
        let mut run = Run::of(vec![read("a", json!({"require": "steps.a.outputs.ok"}))]);
        let state = run.ends("a", done(json!({"ok": true}), false), s(0), s(1));
        assert_eq!(state, succeeded(json!({"ok": true}), false));
    }

    #[test]
    fn a_requirement_that_does_not_hold_fails_with_the_runbooks_words_and_what_was_read() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"require": "steps.a.outputs.ok", "message": "It is not well."}),
        )]);
        let state = run.ends("a", done(json!({"ok": false}), false), s(0), s(1));
        let (failure, applied) = failed_of(&state);
        assert_eq!(failure.kind, "require");
        assert_eq!(failure.cause, "It is not well.");
        assert!(
            failure.evidence.iter().any(|line| line.contains("false")),
            "{failure:?}"
        );
        assert!(!applied);
    }

    #[test]
    fn a_requirement_that_does_not_hold_after_a_change_is_never_tried_again() {
        let mut run = Run::of(vec![write(
            "a",
            json!({"require": "steps.a.outputs.ok", "retry": {"max": 5}}),
        )]);
        let state = run.ends("a", done(json!({"ok": false}), true), s(0), s(1));
        assert!(failed_of(&state).1, "its effect stands");
    }

    #[test]
    fn a_requirement_over_what_was_not_read_fails() {
        let mut run = Run::of(vec![read("a", json!({"require": "steps.a.outputs.ok"}))]);
        let state = run.ends("a", done(json!({}), false), s(0), s(1));
        assert_eq!(failed_of(&state).0.kind, "expression");
    }

    #[test]
    fn until_looks_again_every_two_seconds_within_its_time() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"until": "steps.a.outputs.ok", "timeout": "10s"}),
        )]);
        let not_yet = || done(json!({"ok": false}), false);
        assert!(is_running(&run.ends("a", not_yet(), s(0), s(1))));
        assert_eq!(run.next(s(2)), Next::WaitUntil(s(3)));
        let next = run.try_at(s(3));
        assert_eq!((next.number, next.timeout), (2, s(7)));
        assert!(is_running(&run.ends("a", not_yet(), s(3), s(4))));
        let state = run.ends("a", done(json!({"ok": true}), false), s(6), s(7));
        assert_eq!(state, succeeded(json!({"ok": true}), false));
    }

    #[test]
    fn until_ends_with_its_time_and_says_what_was_waited_for() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"until": "steps.a.outputs.ok", "timeout": "10s"}),
        )]);
        let not_yet = || done(json!({"ok": false}), false);
        assert!(is_running(&run.ends("a", not_yet(), s(0), s(7))));
        let state = run.ends("a", not_yet(), s(9), s(9));
        let (failure, applied) = failed_of(&state);
        assert_eq!((failure.kind.as_str(), applied), ("until", false));
    }

    #[test]
    fn until_with_a_number_of_tries_ends_with_them() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"until": "steps.a.outputs.ok", "retry": {"max": 1, "delay": "1s"}}),
        )]);
        let not_yet = || done(json!({"ok": false}), false);
        assert!(is_running(&run.ends("a", not_yet(), s(0), s(0))));
        assert!(!is_running(&run.ends("a", not_yet(), s(1), s(1))));
    }

    #[test]
    fn until_is_judged_before_require() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"until": "steps.a.outputs.there", "require": "steps.a.outputs.ok"}),
        )]);
        let nothing = done(json!({"there": false, "ok": false}), false);
        assert!(is_running(&run.ends("a", nothing, s(0), s(1))));
        assert_eq!(
            run.progress.steps[&"a".into()].last.as_ref().unwrap().kind,
            "until"
        );
    }
}

mod retries {
    use super::*;

    /// Delays between the tries of a step that never answers.
    fn delays(retry: Value) -> Vec<Duration> {
        let mut run = Run::of(vec![read("a", json!({"retry": retry, "timeout": "1h"}))]);
        let mut delays = Vec::new();
        let mut now = s(0);
        while is_running(&run.ends("a", retriable(), now, now)) {
            let Next::WaitUntil(at) = run.next(now) else {
                panic!("no wait at {now:?}")
            };
            delays.push(at - now);
            now = at;
        }
        delays
    }

    #[test]
    fn without_retry_the_first_failure_is_final() {
        let mut run = Run::of(vec![read("a", json!({}))]);
        let state = run.ends("a", retriable(), s(0), s(1));
        assert_eq!(failed_of(&state), (&failure(), false));
    }

    #[test]
    fn as_many_tries_as_the_runbook_says_after_the_first() {
        assert_eq!(delays(json!({"max": 2, "delay": "5s"})), [s(5), s(5)]);
        assert_eq!(delays(json!({"max": 1})), [s(2)]);
        assert_eq!(delays(json!({"max": 0})), []);
    }

    #[test]
    fn the_wait_grows_by_its_factor_up_to_its_bound() {
        let growing = json!({"max": 5, "delay": "2s", "backoff": 2, "maxDelay": "10s"});
        assert_eq!(delays(growing), [s(2), s(4), s(8), s(10), s(10)]);
        let unbounded = json!({"max": 3, "delay": "30s", "backoff": 10});
        assert_eq!(delays(unbounded), [s(30), s(60), s(60)]);
        let shrinking = json!({"max": 2, "delay": "4s", "backoff": 0.1});
        assert_eq!(delays(shrinking), [s(4), s(4)]);
    }

    #[test]
    fn the_longest_wait_that_can_be_written_is_bounded_too() {
        let longest = json!({"max": 2, "delay": "213503982334d", "backoff": 1e300});
        assert_eq!(delays(longest), [s(60), s(60)]);
    }

    #[test]
    fn no_try_begins_after_the_steps_time() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"retry": {"max": 100, "delay": "4s"}, "timeout": "10s"}),
        )]);
        assert!(is_running(&run.ends("a", retriable(), s(0), s(1))));
        assert_eq!(run.try_at(s(5)).timeout, s(5));
        assert!(!is_running(&run.ends("a", retriable(), s(5), s(6))));
    }

    #[test]
    fn the_time_counts_from_the_first_try() {
        let mut run = Run::of(vec![read(
            "a",
            json!({"retry": {"max": 9, "delay": "1s"}, "timeout": "1m"}),
        )]);
        run.ends("a", retriable(), s(100), s(130));
        run.ends("a", retriable(), s(131), s(140));
        let so_far = &run.progress.steps[&"a".into()];
        assert_eq!((so_far.first_at, so_far.tries), (s(100), 2));
        assert_eq!(run.try_at(s(141)).timeout, s(19));
    }

    #[test]
    fn a_decided_failure_of_the_work_is_final() {
        let mut run = Run::of(vec![write("a", json!({"retry": {"max": 5}}))]);
        let result = TryResult::Failed {
            failure: failure(),
            applied: false,
        };
        assert!(!is_running(&run.ends("a", result, s(0), s(1))));
    }

    #[test]
    fn a_decided_failure_of_a_check_after_the_work_is_looked_at_again() {
        let verify = step_of(
            StepPart::Verify,
            "a",
            "http.probe",
            json!({"retry": {"max": 1}}),
        );
        let mut run = Run::of(vec![verify]);
        let result = || TryResult::Failed {
            failure: failure(),
            applied: false,
        };
        assert!(is_running(&run.ends("a", result(), s(0), s(1))));
        assert!(!is_running(&run.ends("a", result(), s(3), s(4))));
    }

    #[test]
    fn what_may_have_had_an_effect_is_never_tried_again() {
        let mut run = Run::of(vec![write("a", json!({"retry": {"max": 5}}))]);
        let evidence = vec!["the answer was lost".to_owned()];
        let state = run.ends(
            "a",
            TryResult::Unknown {
                evidence: evidence.clone(),
            },
            s(0),
            s(1),
        );
        assert_eq!(state, StepState::Unknown { evidence });
    }

    #[test]
    fn a_step_of_no_segment_stays_as_it_is() {
        let mut run = Run::of(vec![]);
        assert!(is_running(&run.ends(
            "a",
            done(json!({}), true),
            s(0),
            s(1)
        )));
    }
}

mod back {
    use super::*;

    fn undo(steps: Vec<SegmentStep>, known: &[(&str, StepState)]) -> NextUndo {
        let known = known
            .iter()
            .map(|(id, state)| ((*id).into(), state.clone()))
            .collect();
        advance_undo(&assignment(steps), &known)
    }

    fn step_undone(next: &NextUndo) -> &str {
        match next {
            NextUndo::Undo { step, .. } => step.as_str(),
            other => panic!("{other:?}"),
        }
    }

    fn stuck(next: &NextUndo) -> (&str, &Failure) {
        match next {
            NextUndo::Finished(SegmentOutcome::Stuck { step, failure }) => (step.as_str(), failure),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_last_change_goes_back_first_and_then_the_one_before() {
        let steps = || vec![write("a", json!({})), write("b", json!({}))];
        let both = [("a", changed()), ("b", changed())];
        assert_eq!(step_undone(&undo(steps(), &both)), "b");
        let one = [("a", changed()), ("b", StepState::Undone)];
        assert_eq!(step_undone(&undo(steps(), &one)), "a");
        let none = [("a", StepState::Undone), ("b", StepState::Undone)];
        assert_eq!(
            undo(steps(), &none),
            NextUndo::Finished(SegmentOutcome::Undone)
        );
    }

    #[test]
    fn what_had_no_effect_is_gone_past_without_a_word() {
        let failed = |applied| StepState::Failed {
            failure: failure(),
            applied,
        };
        for harmless in [
            StepState::NotStarted,
            StepState::Skipped { why: "if".into() },
            succeeded(json!({}), false),
            failed(false),
        ] {
            let next = undo(
                vec![write("a", json!({})), write("b", json!({}))],
                &[("a", changed()), ("b", harmless)],
            );
            assert_eq!(step_undone(&next), "a");
        }
        let half_done = undo(vec![write("a", json!({}))], &[("a", failed(true))]);
        assert_eq!(step_undone(&half_done), "a");
    }

    #[test]
    fn a_read_that_was_under_way_is_passed() {
        let running = StepState::Running { tries: 1 };
        let next = undo(vec![step("a", "kube.wait", json!({}))], &[("a", running)]);
        assert_eq!(next, NextUndo::Pass { step: "a".into() });
    }

    #[test]
    fn auto_is_the_actions_own_way_back() {
        let next = undo(vec![write("a", json!({}))], &[("a", changed())]);
        let NextUndo::Undo { how, .. } = next else {
            panic!("{next:?}")
        };
        assert_eq!(how, UndoHow::Auto);
    }

    #[test]
    fn none_is_passed_and_never_is_stuck_with_its_reason() {
        let none = json!({"undo": "none", "reason": "Nothing used it."});
        let passed = undo(vec![write("a", none)], &[("a", changed())]);
        assert_eq!(passed, NextUndo::Pass { step: "a".into() });

        let never = json!({"undo": "never", "reason": "The data is gone."});
        let next = undo(vec![write("a", never)], &[("a", changed())]);
        let (step, failure) = stuck(&next);
        assert_eq!((step, failure.kind.as_str()), ("a", "never"));
        assert!(failure.cause.contains("The data is gone."), "{failure}");
    }

    #[test]
    fn an_undo_of_its_own_is_resolved_over_the_steps_input() {
        let own = json!({
            "with": {"deployment": "shop", "image": "shop:v2"},
            "undo": {"with": {"image": "${steps.a.outputs.previousImage}"}},
        });
        let was = succeeded(json!({"previousImage": "shop:v1"}), true);
        let next = undo(vec![write("a", own)], &[("a", was)]);
        let NextUndo::Undo { how, .. } = next else {
            panic!("{next:?}")
        };
        let with = json!({"deployment": "shop", "image": "shop:v1"});
        assert_eq!(
            how,
            UndoHow::Own {
                action: Action::KubeSetImage,
                with
            }
        );
    }

    #[test]
    fn an_undo_of_its_own_may_be_another_action_with_the_same_input() {
        let own = json!({"undo": {"use": "kube.rollout-undo"}});
        let next = undo(vec![write("a", own)], &[("a", changed())]);
        let NextUndo::Undo { how, .. } = next else {
            panic!("{next:?}")
        };
        let with = json!({"deployment": "shop"});
        assert_eq!(
            how,
            UndoHow::Own {
                action: Action::KubeRolloutUndo,
                with
            }
        );
    }

    #[test]
    fn an_undo_whose_input_does_not_resolve_is_stuck() {
        let own = json!({"undo": {"with": {"image": "${steps.gone.outputs.image}"}}});
        let next = undo(vec![write("a", own)], &[("a", changed())]);
        let (step, failure) = stuck(&next);
        assert_eq!((step, failure.kind.as_str()), ("a", "expression"));
    }

    #[test]
    fn what_could_not_be_put_back_ends_the_way_before_what_it_may_rest_on() {
        let undo_failed = StepState::UndoFailed { failure: failure() };
        let next = undo(
            vec![write("a", json!({})), write("b", json!({}))],
            &[("a", changed()), ("b", undo_failed)],
        );
        assert_eq!(stuck(&next), ("b", &failure()));
    }

    #[test]
    fn what_is_not_known_ends_the_way_too() {
        let evidence = vec!["no answer".to_owned()];
        let unknown = StepState::Unknown {
            evidence: evidence.clone(),
        };
        let next = undo(
            vec![write("a", json!({})), write("b", json!({}))],
            &[("a", changed()), ("b", unknown)],
        );
        let step = "b".into();
        assert_eq!(
            next,
            NextUndo::Finished(SegmentOutcome::Unknown { step, evidence })
        );
    }

    #[test]
    fn an_undo_has_the_time_of_the_reads_that_waited_for_its_step() {
        let wait = json!({"timeout": "10m"});
        let next = undo(
            vec![
                write("set", json!({"timeout": "1m"})),
                step("wait", "kube.wait", wait.clone()),
                write("next", json!({})),
                step("wait_again", "kube.wait", wait),
            ],
            &[("set", changed())],
        );
        let NextUndo::Undo { step, timeout, .. } = next else {
            panic!("{next:?}")
        };
        assert_eq!((step.as_str(), timeout.as_secs()), ("set", 660));
    }
}
