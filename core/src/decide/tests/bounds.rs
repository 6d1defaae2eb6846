//! Nobody is waited for for ever, whoever stays away, and every wait names whom it is for.

use std::time::Duration;

use super::*;
use crate::decide::WaitingOn;
use crate::ids::Attempt;
use crate::inventory::Turn;
use crate::job::{HeldBy, Request, StopCause, Wish};
use crate::plan::ObjectRef;

fn name(text: &str) -> TargetName {
    text.parse().unwrap()
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

/// Commits decisions until there are none; why nothing more happens.
fn rest_at(job: &mut Job, inventory: &Inventory, now: Timestamp) -> Vec<WaitingOn> {
    for _ in 0..100 {
        let decision = decide(job, inventory, now);
        if decision.events.is_empty() {
            return decision.waiting;
        }
        for event in decision.events {
            job.apply(event).unwrap();
        }
    }
    panic!("decisions never end: {:?}", job.header.state);
}

fn said(waiting: &[WaitingOn]) -> String {
    let words: Vec<_> = waiting.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// The agent carries out its order.
fn does(job: &mut Job, target: &str, outcome: SegmentOutcome) {
    let orders = assignments(job);
    let order = orders.iter().find(|order| order.target == name(target));
    let order = order.unwrap_or_else(|| panic!("no order for {target}: {orders:?}"));
    let event = TargetEvent::Reported {
        attempt: order.attempt,
        report: Report::Ended {
            steps: steps_of(order, &outcome),
            outcome,
        },
        at: NOW,
    };
    job.apply(Event::Target(name(target), event)).unwrap();
}

fn away(inventory: &mut Inventory, target: &str, since: Timestamp) {
    let absent = Presence::Absent { since };
    inventory.agents.insert(name(target), absent);
}

fn asks(inventory: &mut Inventory, wish: Wish) {
    let number = inventory.requests.len() + 1;
    inventory.requests.push(Request {
        format: 1,
        id: format!("r-{number}").as_str().into(),
        by: "mei".into(),
        reason: "enough".into(),
        wish,
        at: NOW,
    });
}

/// A change of which `a/1` is done, and that goes back.
fn going_back(inventory: &Inventory) -> Job {
    let mut job = job(runbook("change", json!(0)));
    for target in ["a/1", "a/1"] {
        rest_at(&mut job, inventory, NOW);
        does(&mut job, target, SegmentOutcome::Succeeded);
    }
    job.apply(Event::Header(HeaderEvent::Moved {
        state: JobState::Unwinding {
            cause: StopCause::Budget {
                failed: 1,
                unknown: 0,
                budget: 0,
            },
        },
        at: NOW,
    }))
    .unwrap();
    job
}

#[test]
fn who_owes_an_answer_about_drift_is_named_and_then_counts_as_away() {
    let mut job = job(runbook("change", json!(0)));
    let mut inventory = inventory();
    inventory.drift.remove(&name("b/2"));
    let waiting = rest_at(&mut job, &inventory, NOW);
    assert!(said(&waiting).contains("1 agent to confirm") && said(&waiting).contains("b/2"));
    let wake = decide(&job, &inventory, NOW).wake_at;
    assert_eq!(wake, Some(after(30)), "it looks again by itself");
    rest_at(&mut job, &inventory, after(30));
    assert!(job.header.drift_checked);
}

#[test]
fn another_leader_asks_about_drift_anew() {
    let mut job = job(runbook("change", json!(0)));
    let mut inventory = inventory();
    inventory.drift.clear();
    rest_at(&mut job, &inventory, NOW);
    inventory.led_since = after(300);
    rest_at(&mut job, &inventory, after(301));
    assert!(!job.header.drift_checked);
}

#[test]
fn that_drift_was_looked_for_is_committed_after_who_is_left_out() {
    let mut job = job(runbook("remedy", json!(0)));
    let mut inventory = inventory();
    inventory
        .drift
        .insert(name("b/2"), Some("image is v3".into()));
    let mut seen = Vec::new();
    while !job.header.drift_checked {
        let events = decide(&job, &inventory, NOW).events;
        let left_out = events
            .iter()
            .any(|event| matches!(event, Event::Target(..)));
        let checked = events.contains(&Event::Header(HeaderEvent::DriftChecked));
        seen.push((left_out, checked));
        events
            .into_iter()
            .for_each(|event| job.apply(event).unwrap());
    }
    assert_eq!(seen, [(false, false), (true, false), (false, true)]);
}

#[test]
fn who_is_held_before_it_began_is_not_waited_for_longer_than_who_is_away() {
    let mut job = job(runbook("remedy", json!(4)));
    let mut inventory = inventory();
    let why = "two machines".to_owned();
    inventory.agents.insert(name("a/1"), Presence::Held { why });
    inventory.withheld.insert(name("a/1"), NOW);
    let waiting = rest_at(&mut job, &inventory, NOW);
    assert!(said(&waiting).contains("a/1: two machines"), "{waiting:?}");
    rest_at(&mut job, &inventory, after(31));
    let target = job.target(&name("a/1"));
    assert_eq!(target.state, rest(Rest::Untouched));
    let cause = target.failure.unwrap().failure.cause;
    assert!(cause.contains("two machines"), "{cause}");
}

#[test]
fn who_is_passed_over_by_policy_is_no_failure_and_says_why() {
    let mut body = runbook("remedy", json!(0));
    body.spec.targets.when_unreachable = crate::runbook::WhenUnreachable::Skip;
    let mut job = job(body);
    let mut inventory = inventory();
    away(&mut inventory, "a/1", NOW);
    rest_at(&mut job, &inventory, after(31));
    let target = job.target(&name("a/1"));
    assert_eq!(
        (target.state, target.failure),
        (rest(Rest::Untouched), None)
    );
    let view = crate::view::job(&job, &[], after(31));
    let why = view.targets[&name("a/1")].left_out.clone().unwrap();
    assert!(
        why.contains("away") && why.contains("whenUnreachable: skip"),
        "{why}"
    );
}

#[test]
fn time_at_a_barrier_does_not_count_while_an_operator_holds_the_job() {
    let mut body = runbook("change", json!(4));
    body.spec.preflight[0].barrier = crate::runbook::Barrier::Within(Duration::from_secs(60));
    body.spec.rollout.waves.remove(0);
    let mut job = job(body);
    let mut inventory = inventory();
    rest_at(&mut job, &inventory, NOW);
    does(&mut job, "a/1", SegmentOutcome::Succeeded);
    asks(&mut inventory, Wish::Pause);
    rest_at(&mut job, &inventory, after(1));
    assert_eq!(job.header.state, JobState::Paused);
    asks(&mut inventory, Wish::Resume);
    rest_at(&mut job, &inventory, after(3_600));
    assert_eq!(job.header.state, JobState::Running);
    assert!(!job.target(&name("a/2")).late, "it has its minute still");
    rest_at(&mut job, &inventory, after(3_661));
    assert!(job.target(&name("a/2")).late);
}

#[test]
fn a_way_back_gives_up_on_who_stays_away_by_name() {
    let mut inventory = inventory();
    let mut job = going_back(&inventory);
    away(&mut inventory, "a/1", NOW);
    let waiting = rest_at(&mut job, &inventory, after(60));
    assert!(said(&waiting).contains("a/1, absent"), "{waiting:?}");
    rest_at(&mut job, &inventory, after(600));
    let state = job.target(&name("a/1")).state;
    let TargetState::Rest(Rest::NeedsOperator { why }) = state else {
        panic!("{state:?}")
    };
    assert!(
        why.contains("not put back") && why.contains("away for 600 s"),
        "{why}"
    );
    assert!(job.header.state.is_ended(), "{:?}", job.header.state);
}

#[test]
fn who_only_waits_takes_no_slot_of_the_way_back() {
    let mut inventory = inventory();
    let mut job = undoing(&["b/1", "b/2"]);
    let mut plan = Plan::clone(&job.plan);
    plan.scope.phases[0].waves[1].max_parallel = 1;
    job.plan = Arc::new(plan);
    away(&mut inventory, "b/1", NOW);
    rest_at(&mut job, &inventory, NOW);
    let orders: Vec<_> = assignments(&job).into_iter().map(|o| o.target).collect();
    assert_eq!(orders, [name("b/2")]);
}

/// A change whose only change is in doubt.
fn in_doubt(inventory: &mut Inventory) -> Job {
    let mut job = job(runbook("change", json!(0)));
    rest_at(&mut job, inventory, NOW);
    does(&mut job, "a/1", SegmentOutcome::Succeeded);
    rest_at(&mut job, inventory, NOW);
    away(inventory, "a/1", NOW);
    rest_at(&mut job, inventory, after(3_600));
    job
}

#[test]
fn a_question_names_the_step_to_resolve() {
    let mut inventory = inventory();
    let mut job = in_doubt(&mut inventory);
    assert!(matches!(job.header.state, JobState::NeedsOperator { .. }));
    let waiting = rest_at(&mut job, &inventory, after(3_600));
    let next: Vec<_> = waiting
        .iter()
        .filter_map(|on| on.next_command(&job.header.id))
        .collect();
    let command =
        "aldis resolve j-1 --target a/1 --step act --as done|not-done|abandon --reason TEXT";
    assert_eq!(next, [command]);
}

#[test]
fn what_is_known_to_the_last_step_may_be_settled_all_the_same() {
    let mut inventory = inventory();
    let mut job = job(runbook("change", json!(0)));
    rest_at(&mut job, &inventory, NOW);
    does(&mut job, "a/1", SegmentOutcome::Succeeded);
    rest_at(&mut job, &inventory, NOW);
    let act = TargetEvent::Reported {
        attempt: Attempt(2),
        report: Report::Step {
            step: "act".into(),
            state: StepState::Succeeded {
                outputs: Value::Null,
                changed: true,
            },
        },
        at: NOW,
    };
    job.apply(Event::Target(name("a/1"), act)).unwrap();
    away(&mut inventory, "a/1", NOW);
    rest_at(&mut job, &inventory, after(3_600));
    let wish = Wish::Resolve {
        target: name("a/1"),
        step: "act".into(),
        verdict: crate::job::Verdict::Done,
    };
    assert_eq!(job.makes_sense(&wish), Ok(()));
}

#[test]
fn a_cancel_closes_what_waits_for_an_operator_and_says_so() {
    let mut inventory = inventory();
    let mut job = in_doubt(&mut inventory);
    asks(&mut inventory, Wish::Cancel { undo: false });
    rest_at(&mut job, &inventory, after(3_601));
    assert!(matches!(job.header.state, JobState::Cancelled { .. }));
    let target = job.target(&name("a/1"));
    let TargetState::Rest(Rest::NeedsOperator { why }) = target.state else {
        panic!("{:?}", target.state)
    };
    assert!(
        why.contains("act") && why.contains("cancelled: enough"),
        "{why}"
    );
    assert_eq!(target.resolutions[0].by, "mei");
}

#[test]
fn a_wish_that_changes_nothing_is_refused_and_says_what_would() {
    let mut inventory = inventory();
    let back = going_back(&inventory);
    let refused = back.makes_sense(&Wish::Cancel { undo: true }).unwrap_err();
    assert!(
        refused.hint("j-1").contains("`aldis cancel j-1`"),
        "{refused}"
    );
    assert_eq!(back.makes_sense(&Wish::Cancel { undo: false }), Ok(()));
    assert!(back.makes_sense(&Wish::Pause).is_err());
    asks(&mut inventory, Wish::Cancel { undo: false });
    let mut stopping = back;
    let away_now = Presence::Absent { since: after(1) };
    inventory.agents.insert(name("a/1"), away_now);
    let decision = decide(&stopping, &inventory, after(1));
    decision
        .events
        .into_iter()
        .for_each(|event| stopping.apply(event).unwrap());
    assert!(matches!(stopping.header.state, JobState::Stopping { .. }));
    assert!(stopping.makes_sense(&Wish::Cancel { undo: false }).is_err());
}

#[test]
fn going_on_from_an_answer_waits_for_the_locks_that_were_let_go_of() {
    let mut inventory = inventory();
    let mut job = in_doubt(&mut inventory);
    let object = ObjectRef {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "shop".into(),
    };
    let (target, by) = (name("a/1"), JobId::from("j-2"));
    inventory.turn = Turn::Locked { object, target, by };
    asks(&mut inventory, resolve("act"));
    let waiting = rest_at(&mut job, &inventory, after(3_600));
    assert!(matches!(job.header.state, JobState::NeedsOperator { .. }));
    assert!(said(&waiting).contains("held by job j-2"), "{waiting:?}");
    inventory.turn = Turn::Yes;
    rest_at(&mut job, &inventory, after(3_600));
    assert!(!matches!(job.header.state, JobState::NeedsOperator { .. }));
}

fn resolve(step: &str) -> Wish {
    Wish::Resolve {
        target: name("a/1"),
        step: step.into(),
        verdict: crate::job::Verdict::Done,
    }
}

/// `a/1` was away when the job was planned.
fn deferred() -> Job {
    let mut job = job(runbook("remedy", json!(4)));
    let mut plan = Plan::clone(&job.plan);
    let part = plan.parts.get_mut(&name("a/1")).unwrap();
    part.disposition = Disposition::Deferred { why: "away".into() };
    job.plan = Arc::new(plan);
    job
}

#[test]
fn who_was_away_when_planned_is_planned_before_it_runs_though_it_is_back_in_time() {
    let mut job = deferred();
    let inventory = inventory();
    rest_at(&mut job, &inventory, NOW);
    assert!(matches!(
        job.target(&name("a/1")).state,
        TargetState::Deferred { .. }
    ));
    let wants = decide(&job, &inventory, NOW).reads.plan;
    assert_eq!(wants, [name("a/1")].into());
}

#[test]
fn a_late_plan_waits_for_a_lock_by_name_and_for_an_answer_no_longer_than_a_day() {
    let mut job = deferred();
    let mut inventory = inventory();
    let object = ObjectRef {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "shop".into(),
    };
    rest_at(&mut job, &inventory, NOW);
    let by = JobId::from("j-2");
    let held = TargetEvent::LateLocked(HeldBy { object, by });
    job.apply(Event::Target(name("a/1"), held)).unwrap();
    inventory.late_locks.insert(name("a/1"));
    let waiting = rest_at(&mut job, &inventory, NOW);
    assert!(said(&waiting).contains("held by job j-2"), "{waiting:?}");
    assert!(decide(&job, &inventory, NOW).reads.plan.is_empty());
    inventory.late_locks.clear();
    rest_at(&mut job, &inventory, after(24 * 3_600));
    let state = job.target(&name("a/1")).state;
    assert!(
        matches!(&state, TargetState::Rest(Rest::NeedsOperator { why }) if why.contains("not planned")),
        "{state:?}"
    );
}
