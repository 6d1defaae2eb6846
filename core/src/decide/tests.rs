//! Whole jobs driven to rest by agents that answer as a test says.

mod bounds;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::decide;
use crate::assignments::{Order, Wanted, assignments};
use crate::canonical;
use crate::ids::{Digest, Fence, JobId, PlanId, StepId, TargetName, Timestamp};
use crate::inventory::{Inventory, Presence, Turn};
use crate::job::{
    Direction, Event, Header, HeaderEvent, Job, JobState, Report, Rest, TargetEvent, TargetState,
};
use crate::outcome::{Failure, SegmentOutcome, StepState};
use crate::plan::part::{ClusterIdentity, Disposition, TargetPart};
use crate::plan::{Phase, Plan, RunbookRef, Scope, waves};
use crate::runbook::Runbook;

const NOW: Timestamp = Timestamp(1_000_000);

/// Two waves over four targets: `a/1`, then the rest. Preflight ends at a barrier.
fn runbook(direction: &str, max_failures: Value) -> Runbook {
    serde_json::from_value(json!({
        "apiVersion": "aldis.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": "r"},
        "spec": {
            "direction": direction,
            "rollout": {
                "waves": [{"pick": {"max": 1}}, {"pick": {"percent": 100}, "maxParallel": 2}],
                "maxFailures": max_failures,
            },
            "preflight": [{"id": "look", "use": "kube.get", "barrier": true}],
            "steps": [{"id": "act", "use": "kube.set-image"}],
        }
    }))
    .unwrap()
}

fn targets() -> Vec<TargetName> {
    ["a/1", "a/2", "b/1", "b/2"]
        .iter()
        .map(|name| name.parse().unwrap())
        .collect()
}

fn part(target: &TargetName) -> TargetPart {
    TargetPart {
        target: target.clone(),
        identity: ClusterIdentity {
            cluster_uid: target.to_string(),
            ca_fingerprint: String::new(),
        },
        simulated: true,
        disposition: Disposition::Run,
        steps: vec![],
        warnings: vec![],
        left: None,
    }
}

fn plan(body: Runbook) -> Plan {
    let selection: BTreeSet<TargetName> = targets().into_iter().collect();
    let phase = Phase {
        name: "main".into(),
        waves: waves::cut(&body.spec.rollout, &selection),
        segments: waves::segments(&body),
        budget: waves::budget(&body.spec.rollout.max_failures, selection.len()),
        on_failure: body.on_failure(),
    };
    let runbook = RunbookRef {
        name: "r".into(),
        version: 1,
        digest: canonical::digest(&body),
    };
    let scope = Scope {
        runbook,
        body,
        params: json!({}),
        selector: BTreeMap::new(),
        selection: selection
            .iter()
            .map(|name| (name.clone(), BTreeMap::new()))
            .collect(),
        phases: vec![phase],
        expires_at: NOW,
    };
    let parts = selection
        .iter()
        .map(|name| (name.clone(), part(name)))
        .collect();
    Plan::new(PlanId::from("p-1"), scope, parts, "mei".into(), NOW)
}

fn job(body: Runbook) -> Job {
    let plan = plan(body);
    let header = Header {
        format: Header::FORMAT,
        id: JobId::from("j-1"),
        plan: plan.id.clone(),
        digest: plan.digest.clone(),
        body: Digest::from("body"),
        runbook: plan.scope.runbook.clone(),
        selected: 4,
        simulated: true,
        submitted_by: "mei".into(),
        reason: None,
        submitted_at: NOW,
        priority: 0,
        trace: None,
        link: None,
        state: JobState::Queued,
        drift_checked: false,
        wave: 0,
        soak: None,
        folded: BTreeSet::new(),
        started_at: None,
        resumed_at: None,
        ended_at: None,
    };
    let (late_parts, targets) = (BTreeMap::new(), BTreeMap::new());
    Job {
        header,
        plan: Arc::new(plan),
        late_parts,
        targets,
    }
}

fn inventory() -> Inventory {
    let live = |name: TargetName| {
        (
            name,
            Presence::Live {
                journal: "journal".into(),
            },
        )
    };
    Inventory {
        fence: Fence {
            incarnation: 1,
            epoch: 1,
        },
        agents: targets().into_iter().map(live).collect(),
        drift: targets().into_iter().map(|name| (name, None)).collect(),
        turn: Turn::Yes,
        ..Inventory::default()
    }
}

/// What an agent answers to an order.
type Agent = fn(&Order) -> SegmentOutcome;

fn obedient(order: &Order) -> SegmentOutcome {
    match (order.wanted, order.direction) {
        (Wanted::Stop, _) => SegmentOutcome::Stopped { after: None },
        (_, Direction::Forward) => SegmentOutcome::Succeeded,
        (_, Direction::Undo) => SegmentOutcome::Undone,
    }
}

/// Fails the work on `b/1`.
fn one_fails(order: &Order) -> SegmentOutcome {
    let forward = order.direction == Direction::Forward && order.wanted == Wanted::Go;
    if forward && order.segment == 1 && order.target.to_string() == "b/1" {
        let failure = Failure::new("noProgress", "pod x: ImagePullBackOff");
        return SegmentOutcome::Failed {
            step: "act".into(),
            failure,
        };
    }
    obedient(order)
}

fn steps_of(order: &Order, outcome: &SegmentOutcome) -> BTreeMap<StepId, StepState> {
    let state = match (outcome, order.direction, order.segment) {
        (SegmentOutcome::Succeeded, Direction::Forward, 1) => StepState::Succeeded {
            outputs: Value::Null,
            changed: true,
        },
        (SegmentOutcome::Failed { failure, .. }, _, _) => StepState::Failed {
            failure: failure.clone(),
            applied: true,
        },
        (SegmentOutcome::Undone, _, _) => StepState::Undone,
        _ => return BTreeMap::new(),
    };
    BTreeMap::from([("act".into(), state)])
}

/// Commits decisions until there are none; checks that deciding again changes nothing.
fn settle(job: &mut Job, inventory: &Inventory) {
    for _ in 0..100 {
        let decision = decide(job, inventory, NOW);
        if decision.events.is_empty() {
            assert_eq!(decision, decide(job, inventory, NOW), "deciding twice");
            let moves = decision.wake_at.is_some() || !decision.waiting.is_empty();
            assert!(
                moves || job.header.state.is_ended(),
                "nobody owns {:?}",
                job.header.state
            );
            return;
        }
        for event in decision.events {
            job.apply(event).unwrap();
        }
    }
    panic!("decisions never end: {:?}", job.header.state);
}

/// Drives a job to its end; returns each order that an agent answered.
fn run(job: &mut Job, inventory: &Inventory, agent: Agent) -> Vec<(String, Direction, usize)> {
    let mut answered = Vec::new();
    for _ in 0..100 {
        settle(job, inventory);
        let orders = assignments(job);
        let Some(order) = orders.first() else { break };
        assert!(orders.len() <= 2, "maxParallel: {orders:?}");
        let outcome = agent(order);
        answered.push((order.target.to_string(), order.direction, order.segment));
        let steps = steps_of(order, &outcome);
        let report = Report::Ended { outcome, steps };
        let event = TargetEvent::Reported {
            attempt: order.attempt,
            report,
            at: NOW,
        };
        job.apply(Event::Target(order.target.clone(), event))
            .unwrap();
    }
    answered
}

fn rests(job: &Job) -> Vec<TargetState> {
    targets()
        .iter()
        .map(|name| job.target(name).state)
        .collect()
}

fn rest(rest: Rest) -> TargetState {
    TargetState::Rest(rest)
}

#[test]
fn waves_in_order_and_nobody_acts_before_all_of_the_wave_are_at_the_barrier() {
    let mut job = job(runbook("change", json!(0)));
    let answered = run(&mut job, &inventory(), obedient);
    assert_eq!(job.header.state, JobState::Succeeded);
    assert_eq!(rests(&job), vec![rest(Rest::Changed); 4]);
    let order: Vec<_> = answered
        .iter()
        .map(|(name, _, segment)| (name.as_str(), *segment))
        .collect();
    assert_eq!(order[..2], [("a/1", 0), ("a/1", 1)]);
    assert_eq!(
        order[2..5]
            .iter()
            .filter(|(_, segment)| *segment == 0)
            .count(),
        3,
        "{order:?}"
    );
}

#[test]
fn a_change_over_its_budget_is_put_back_everywhere_last_wave_first() {
    let mut job = job(runbook("change", json!(0)));
    let answered = run(&mut job, &inventory(), one_fails);
    assert!(
        matches!(job.header.state, JobState::Undone { .. }),
        "{:?}",
        job.header.state
    );
    let undone: Vec<_> = answered
        .iter()
        .filter(|(_, direction, _)| *direction == Direction::Undo)
        .map(|(name, _, _)| name.as_str())
        .collect();
    assert_eq!(undone.last(), Some(&"a/1"), "{undone:?}");
    for state in rests(&job) {
        assert!(
            matches!(state, TargetState::Rest(Rest::Restored | Rest::Untouched)),
            "{state:?}"
        );
    }
}

#[test]
fn a_remedy_within_its_budget_helps_the_others_and_names_the_one() {
    let mut job = job(runbook("remedy", json!("25%")));
    run(&mut job, &inventory(), one_fails);
    assert_eq!(job.header.state, JobState::PartlyDone);
    let states = rests(&job);
    assert_eq!(
        states
            .iter()
            .filter(|state| **state == rest(Rest::Changed))
            .count(),
        3
    );
    assert!(
        matches!(&states[2], TargetState::Rest(Rest::NeedsOperator { why }) if why.contains("act")),
        "{states:?}"
    );
}

#[test]
fn a_reason_that_many_targets_give_is_said_once_with_their_number() {
    let mut plan = Plan::clone(&job(runbook("remedy", json!(0))).plan);
    for (name, part) in &mut plan.parts {
        let why = match name.region() {
            "a" => "`from` is left out; runs shop:v2".to_owned(),
            _ => format!("{name} is another"),
        };
        part.disposition = Disposition::Refused { why, hint: None };
    }
    let expected = [
        "2 targets (a/1 (simulated), a/2 (simulated)): `from` is left out; runs shop:v2",
        "b/1 (simulated): b/1 is another",
        "b/2 (simulated): b/2 is another",
    ];
    assert_eq!(plan.refusals(), expected);
}

#[test]
fn drift_anywhere_refuses_a_change_before_anything_is_touched() {
    let mut job = job(runbook("change", json!(0)));
    let mut inventory = inventory();
    inventory
        .drift
        .insert("b/2".parse().unwrap(), Some("image is v3".into()));
    assert_eq!(run(&mut job, &inventory, obedient), []);
    assert!(
        matches!(job.header.state, JobState::Failed { .. }),
        "{:?}",
        job.header.state
    );
    assert!(job.targets.is_empty());
}

#[test]
fn drift_leaves_that_target_out_of_a_remedy() {
    let mut job = job(runbook("remedy", json!(0)));
    let mut inventory = inventory();
    inventory
        .drift
        .insert("b/2".parse().unwrap(), Some("image is v3".into()));
    run(&mut job, &inventory, obedient);
    assert_eq!(job.header.state, JobState::PartlyDone);
    assert_eq!(rests(&job)[3], rest(Rest::Untouched));
}

#[test]
fn an_absent_agent_is_waited_for_by_name_and_nothing_is_invented() {
    let mut job = job(runbook("change", json!(0)));
    let inventory = inventory();
    settle(&mut job, &inventory);
    let mut away = inventory.clone();
    away.agents
        .insert("a/1".parse().unwrap(), Presence::Absent { since: NOW });
    settle(&mut job, &away);
    assert!(
        matches!(rests(&job)[0], TargetState::Assigned { .. }),
        "{:?}",
        rests(&job)
    );
    let waiting = decide(&job, &away, NOW).waiting;
    assert!(
        waiting
            .iter()
            .any(|reason| reason.to_string().contains("a/1, absent")),
        "{waiting:?}"
    );
}

#[test]
fn a_soak_that_cannot_be_read_says_so_to_those_who_see_only_the_records() {
    let mut body = runbook("change", json!(0));
    let soak = json!({"for": "60s", "every": "5s"});
    body.spec.rollout.waves[0].soak = serde_json::from_value(soak).unwrap();
    let mut job = job(body);
    let mut leader = inventory();
    run(&mut job, &leader, obedient);
    let unread_by_a_viewer = |job: &Job| {
        let waiting = decide(job, &inventory(), NOW).waiting;
        let soak = waiting.into_iter().find_map(|reason| match reason {
            super::WaitingOn::Soak { unread, .. } => Some(unread),
            _ => None,
        });
        soak.expect("the job soaks").len()
    };
    let mut progress = crate::soak::SoakProgress::begin(0);
    let away = "its agent is away".to_owned();
    progress.unread.insert("a/1".parse().unwrap(), away);
    leader.soak = Some(progress.clone());
    settle(&mut job, &leader);
    assert_eq!(unread_by_a_viewer(&job), 1);
    progress.unread.clear();
    progress.elapsed_ms = 5_000;
    leader.soak = Some(progress);
    settle(&mut job, &leader);
    assert_eq!(unread_by_a_viewer(&job), 0);
}

/// A job that undoes another one, which left `act` on these targets.
fn undoing(left: &[&str]) -> Job {
    let mut job = job(runbook("change", json!(0)));
    let mut plan = Plan::clone(&job.plan);
    for (name, part) in &mut plan.parts {
        let done = StepState::Succeeded {
            outputs: Value::Null,
            changed: true,
        };
        if left.contains(&name.to_string().as_str()) {
            part.left = Some(crate::plan::Left {
                job: JobId::from("j-0"),
                steps: BTreeMap::from([("act".into(), done)]),
            });
        } else {
            part.disposition = Disposition::Unchanged {
                why: "nothing was left".into(),
            };
        }
    }
    job.plan = Arc::new(plan);
    job.header.link = Some(crate::job::Link::Undoes {
        job: JobId::from("j-0"),
    });
    job
}

#[test]
fn a_job_that_undoes_another_only_goes_back_last_wave_first_and_succeeds() {
    let mut job = undoing(&["a/1", "b/1"]);
    let answered = run(&mut job, &inventory(), obedient);
    let expected = [("b/1", Direction::Undo, 0), ("a/1", Direction::Undo, 0)];
    let expected = expected.map(|(name, way, segment)| (name.to_owned(), way, segment));
    assert_eq!(answered, expected);
    assert_eq!(job.header.state, JobState::Succeeded);
    for name in ["a/1", "b/1"] {
        let state = &job.targets[&name.parse().unwrap()].state;
        assert_eq!(*state, TargetState::Rest(Rest::Restored), "{name}");
    }
}

#[test]
fn an_undo_that_gets_stuck_needs_an_operator_and_is_no_success() {
    let stuck: Agent = |_| SegmentOutcome::Stuck {
        step: "act".into(),
        failure: Failure::new("changed", "somebody changed it since"),
    };
    let mut job = undoing(&["a/1"]);
    run(&mut job, &inventory(), stuck);
    assert!(matches!(job.header.state, JobState::NeedsOperator { .. }));
}

#[test]
fn nothing_is_opened_in_the_round_that_finds_the_budget_gone() {
    let mut job = job(runbook("remedy", json!(0)));
    let mut inventory = inventory();
    let since = Timestamp(1);
    let away = "b/1".parse().unwrap();
    inventory.agents.insert(away, Presence::Absent { since });
    let answered = run(&mut job, &inventory, obedient);
    let worked: BTreeSet<_> = answered.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(worked, BTreeSet::from(["a/1"]), "{:?}", job.header.state);
}
