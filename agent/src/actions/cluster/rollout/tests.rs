//! Looks at rollouts as they go, and what is said of each.

use super::super::deployment::{Condition, samples};
use super::*;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);

fn moving() -> Live {
    let mut live = samples::live("checkout:v2");
    live.counts.updated = 1;
    live.counts.total = 4;
    live
}

fn pod(container: &Value) -> Pod {
    Pod::read(&json!({
        "metadata": {"name": "p-1"},
        "status": {"containerStatuses": [container]},
    }))
    .expect("a pod")
}

fn waiting(reason: &str, restarts: i64) -> Pod {
    pod(&json!({
        "name": "app", "ready": false, "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": "because"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
    }))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn watch() -> Watch {
    Watch::new(Goal::RolledOut, PATIENCE, None)
}

fn stuck(verdict: Verdict) -> Stuck {
    match verdict {
        Verdict::Stuck(stuck) => stuck,
        other @ (Verdict::Reached | Verdict::Moving) => panic!("{other:?}"),
    }
}

fn look(watch: &mut Watch, live: &Live, pods: &[Pod], at: u64) -> Verdict {
    let look = Look {
        live,
        pods: Some(pods),
    };
    watch.look(&look, seconds(at))
}

#[test]
fn a_finished_rollout_is_reached_at_once() {
    let live = samples::live("a");
    assert_eq!(look(&mut watch(), &live, &[], 0), Verdict::Reached);
}

#[test]
fn an_image_that_cannot_be_pulled_has_a_moment_and_not_more() {
    let mut watch = watch();
    let live = moving();
    let at = |watch: &mut Watch, reason, at| look(watch, &live, &[waiting(reason, 0)], at);
    assert_eq!(at(&mut watch, "ErrImagePull", 1), Verdict::Moving);
    assert_eq!(at(&mut watch, "ImagePullBackOff", 3), Verdict::Moving);
    let stuck = stuck(at(&mut watch, "ErrImagePull", 6));
    assert_eq!(
        stuck.failure.cause,
        "Deployment shop/checkout cannot start: ErrImagePull in pod p-1"
    );
    assert_eq!(
        stuck.failure.evidence,
        [
            "pod p-1, container app: ErrImagePull: because",
            "1 of 3 pods updated, 3 available"
        ]
    );
}

#[test]
fn a_registry_that_hiccups_starts_its_grace_anew() {
    let mut watch = watch();
    let live = moving();
    let running = pod(&json!({"name": "app", "ready": false, "state": {"running": {}}}));
    assert_eq!(
        look(&mut watch, &live, &[waiting("ErrImagePull", 0)], 0),
        Verdict::Moving
    );
    assert_eq!(look(&mut watch, &live, &[running], 3), Verdict::Moving);
    assert_eq!(
        look(&mut watch, &live, &[waiting("ErrImagePull", 0)], 6),
        Verdict::Moving
    );
}

#[test]
fn one_restart_is_forgiven_and_a_loop_is_not() {
    let mut watch = watch();
    let live = moving();
    let first = look(&mut watch, &live, &[waiting("CrashLoopBackOff", 1)], 0);
    assert_eq!(first, Verdict::Moving);
    let stuck = stuck(look(
        &mut watch,
        &live,
        &[waiting("CrashLoopBackOff", 2)],
        1,
    ));
    assert!(stuck.failure.evidence[0].ends_with("restarted 2 times, exit code 1 (Error)"));
    let log = stuck.log.expect("whose log");
    assert_eq!((log.container.as_str(), log.previous), ("app", true));
}

#[test]
fn a_loop_is_found_by_its_count_where_no_look_meets_it_waiting() {
    let mut watch = watch();
    let live = moving();
    let running = |restarts: i64, ready: bool| {
        pod(
            &json!({"name": "app", "ready": ready, "restartCount": restarts, "state": {"running": {}}}),
        )
    };
    // Restarts of long ago do not count, and a pod that serves is not failed for them.
    assert_eq!(
        look(&mut watch, &live, &[running(7, false)], 0),
        Verdict::Moving
    );
    assert_eq!(
        look(&mut watch, &live, &[running(9, false)], 1),
        Verdict::Moving
    );
    assert_eq!(
        look(&mut watch, &live, &[running(10, true)], 2),
        Verdict::Moving
    );
    let stuck = stuck(look(&mut watch, &live, &[running(10, false)], 3));
    assert!(
        stuck.failure.cause.contains("crash loop in pod p-1"),
        "{stuck:?}"
    );
}

#[test]
fn a_config_error_and_a_name_that_is_none_are_told() {
    let live = moving();
    let mut first = watch();
    let pods = [waiting("CreateContainerConfigError", 0)];
    assert_eq!(look(&mut first, &live, &pods, 0), Verdict::Moving);
    let told = stuck(look(&mut first, &live, &pods, 5)).failure;
    assert!(told.cause.contains("CreateContainerConfigError"), "{told}");
    let told = stuck(look(
        &mut watch(),
        &live,
        &[waiting("InvalidImageName", 0)],
        0,
    ))
    .failure;
    assert!(told.cause.contains("InvalidImageName"), "{told}");
}

#[test]
fn a_pod_that_no_node_takes_waits_for_an_autoscaler_and_tells_the_reason() {
    let unscheduled = Pod::read(&json!({
        "metadata": {"name": "p-1"},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]},
    }))
    .unwrap();
    let mut watch = Watch::new(Goal::RolledOut, seconds(20), None);
    let live = moving();
    let pods = [unscheduled];
    assert_eq!(look(&mut watch, &live, &pods, 0), Verdict::Moving);
    assert_eq!(look(&mut watch, &live, &pods, 9), Verdict::Moving);
    let stuck = stuck(look(&mut watch, &live, &pods, 10));
    assert!(
        stuck.failure.evidence[0].contains("Insufficient cpu"),
        "{stuck:?}"
    );
}

#[test]
fn pods_that_cannot_be_made_are_told() {
    let mut live = moving();
    live.conditions.push(Condition {
        kind: "ReplicaFailure".into(),
        status: "True".into(),
        reason: "FailedCreate".into(),
        message: "exceeded quota: pods".into(),
    });
    let mut watch = watch();
    assert_eq!(look(&mut watch, &live, &[], 0), Verdict::Moving);
    let stuck = stuck(look(&mut watch, &live, &[], 10));
    assert_eq!(
        stuck.failure.evidence[0],
        "FailedCreate: exceeded quota: pods"
    );
}

#[test]
fn readiness_that_comes_and_goes_is_no_progress() {
    let mut watch = watch();
    let mut live = moving();
    let mut at = |ready: i64, at: u64| {
        live.counts.ready = ready;
        look(&mut watch, &live, &[], at)
    };
    assert_eq!(at(3, 0), Verdict::Moving);
    assert_eq!(at(4, 60), Verdict::Moving);
    for (ready, time) in [(3, 90), (4, 120), (3, 150), (4, 179)] {
        assert_eq!(at(ready, time), Verdict::Moving);
    }
    let stuck = stuck(at(3, 180));
    assert_eq!(stuck.failure.kind, "noProgress");
    assert!(
        stuck.failure.cause.contains("has not moved for 120 s"),
        "{stuck:?}"
    );
}

/// A pod whose readiness changed at this second.
fn dated(ready: bool, second: u32) -> Pod {
    let status = if ready { "True" } else { "False" };
    Pod::read(&json!({
        "metadata": {"name": "p-1"},
        "status": {
            "conditions": [{"type": "Ready", "status": status,
                "lastTransitionTime": format!("2026-11-24T09:00:{second:02}Z")}],
            "containerStatuses": [{"name": "app", "ready": ready, "state": {"running": {}}}],
        },
    }))
    .unwrap()
}

#[test]
fn a_pod_that_does_not_stay_ready_is_told_with_how_often() {
    let mut watch = Watch::new(Goal::RolledOut, seconds(20), None);
    let live = moving();
    let looks = [
        (true, 0),
        (false, 3),
        (true, 6),
        (false, 9),
        (true, 12),
        (false, 15),
    ];
    for (ready, second) in looks {
        let pods = [dated(ready, second)];
        let verdict = look(&mut watch, &live, &pods, u64::from(second));
        assert_eq!(verdict, Verdict::Moving, "{second}");
    }
    let failure = stuck(look(&mut watch, &live, &[dated(false, 15)], 20)).failure;
    assert_eq!(
        failure.cause,
        "Deployment shop/checkout has not moved for 20 s: 1 of 3 pods updated, 3 available, \
         pods that were ready became unready again 3 times"
    );
    assert_eq!(
        failure.evidence,
        [
            "pod p-1 was ready and became unready again 3 times, container app: running, not ready, restarted 0 times"
        ]
    );
}

#[test]
fn a_break_between_two_looks_is_seen_by_its_date() {
    let mut watch = Watch::new(Goal::RolledOut, seconds(20), None);
    let live = moving();
    for second in [0, 4] {
        look(&mut watch, &live, &[dated(true, second)], u64::from(second));
    }
    let failure = stuck(look(&mut watch, &live, &[dated(true, 4)], 20)).failure;
    assert_eq!(
        failure.evidence,
        [
            "pod p-1 was ready and became unready again once, container app: running, ready, restarted 0 times"
        ]
    );
}

#[test]
fn a_rollout_is_believed_once_a_pod_that_was_unready_again_has_stayed_ready() {
    let mut watch = watch();
    let done = samples::live("a");
    let mut moving = samples::live("a");
    moving.counts.available = 2;
    let mut at = |live: &Live, pod: Pod, at| look(&mut watch, live, &[pod], at);
    assert_eq!(at(&moving, dated(true, 0), 0), Verdict::Moving);
    assert_eq!(at(&moving, dated(false, 3), 3), Verdict::Moving);
    assert_eq!(at(&done, dated(true, 6), 6), Verdict::Moving, "not at once");
    assert_eq!(at(&done, dated(true, 6), 15), Verdict::Moving);
    assert_eq!(at(&done, dated(true, 6), 16), Verdict::Reached);
}

#[test]
fn a_pod_that_is_gone_or_got_ready_late_holds_up_nothing() {
    let mut watch = watch();
    let done = samples::live("a");
    let mut moving = samples::live("a");
    moving.counts.available = 2;
    let mut other = dated(false, 0);
    other.name = "p-2".into();
    look(&mut watch, &moving, &[dated(true, 0), other.clone()], 0);
    look(&mut watch, &moving, &[dated(false, 3), other.clone()], 3);
    other.ready = true;
    other.readiness_dated = "2026-11-24T09:00:04Z".into();
    assert_eq!(look(&mut watch, &done, &[other], 4), Verdict::Reached);
}

#[test]
fn an_undo_does_not_ask_for_more_than_there_was() {
    let before = Completeness {
        complete: true,
        updated: 3,
        available: 3,
    };
    let mut watch = Watch::new(Goal::AsBefore(before), PATIENCE, None);
    let mut moving = samples::live("a");
    moving.counts.available = 2;
    look(&mut watch, &moving, &[dated(true, 0)], 0);
    look(&mut watch, &moving, &[dated(false, 3)], 3);
    let back = look(&mut watch, &samples::live("a"), &[dated(true, 6)], 6);
    assert_eq!(back, Verdict::Reached);
}

#[test]
fn a_deadline_that_an_earlier_rollout_missed_is_not_held_against_this_one() {
    let mut overdue = moving();
    overdue.conditions.push(Condition {
        kind: "Progressing".into(),
        status: "False".into(),
        reason: "ProgressDeadlineExceeded".into(),
        message: String::new(),
    });
    let mut stale = watch();
    assert_eq!(look(&mut stale, &overdue, &[], 0), Verdict::Moving);
    assert_eq!(look(&mut stale, &overdue, &[], 9), Verdict::Moving);
    assert!(matches!(
        look(&mut stale, &overdue, &[], 10),
        Verdict::Stuck(_)
    ));
    let mut fresh = watch();
    assert_eq!(look(&mut fresh, &moving(), &[], 0), Verdict::Moving);
    let told = stuck(look(&mut fresh, &overdue, &[], 1)).failure;
    assert!(
        told.cause.contains("passed its progress deadline"),
        "{told}"
    );
}

#[test]
fn a_template_that_changes_meanwhile_is_drift_and_a_pause_ends_the_wait() {
    let mut watch = watch();
    assert_eq!(look(&mut watch, &moving(), &[], 0), Verdict::Moving);
    let mut other = samples::live("checkout:v3");
    let failure = stuck(look(&mut watch, &other, &[], 1)).failure;
    assert_eq!(failure.kind, "drift");
    assert!(failure.cause.contains("by kubectl-set"), "{failure}");
    other = moving();
    other.paused = true;
    assert_eq!(
        stuck(look(&mut watch, &other, &[], 2)).failure.kind,
        "paused"
    );
}

#[test]
fn a_rollout_of_a_template_that_the_job_did_not_leave_is_drift_however_complete() {
    let left = samples::live("checkout:v2").hash;
    let mut watch = Watch::new(Goal::RolledOut, PATIENCE, Some(left));
    assert_eq!(
        look(&mut watch, &samples::live("checkout:v2"), &[], 0),
        Verdict::Reached
    );
    let failure = stuck(look(&mut watch, &samples::live("checkout:v1"), &[], 1)).failure;
    assert_eq!(failure.kind, "drift");
    assert!(
        failure
            .cause
            .contains("after the job wrote it, by kubectl-set at"),
        "{failure}"
    );
}

#[test]
fn pods_that_run_and_do_not_serve_are_told_with_whose_log_to_read() {
    let mut watch = watch();
    let live = moving();
    let pods: Vec<Pod> = (1..=4)
        .map(|number| {
            let mut pod = pod(&json!({
                "name": "app", "ready": false, "restartCount": 1, "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
            }));
            pod.name = format!("p-{number}");
            pod
        })
        .collect();
    assert_eq!(look(&mut watch, &live, &pods, 0), Verdict::Moving);
    let stuck = stuck(look(&mut watch, &live, &pods, 120));
    assert_eq!(
        stuck.failure.evidence[0],
        "pod p-1, container app: running, not ready, restarted once, ended last with exit code 1 (Error)"
    );
    assert_eq!(stuck.failure.evidence.len(), MOST_PODS + 1, "{stuck:?}");
    let log = stuck.log.expect("whose log");
    assert_eq!((log.pod.as_str(), log.previous), ("p-1", false));
}

#[test]
fn without_a_watch_a_pod_that_ended_is_told_though_it_runs_again_and_a_sound_one_is_not() {
    let sound = json!({"name": "app", "ready": true, "restartCount": 0, "state": {"running": {}}});
    let again = json!({
        "name": "app", "ready": true, "restartCount": 1, "state": {"running": {}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
    });
    let ready = |container: &Value| {
        let mut pod = pod(container);
        pod.ready = true;
        pod
    };
    assert_eq!(ailing(&[ready(&sound)]), [""; 0]);
    assert_eq!(
        ailing(&[ready(&sound), ready(&again), waiting("CrashLoopBackOff", 3)]),
        [
            "pod p-1, container app: running, ready, restarted once, ended last with exit code 1 (Error)",
            "pod p-1, container app: CrashLoopBackOff: restarted 3 times, exit code 1 (Error)",
        ]
    );
    let many = vec![waiting("CrashLoopBackOff", 3); 5];
    assert_eq!(ailing(&many)[3], "2 more like these");
}

#[test]
fn an_undo_waits_for_as_much_as_there_was() {
    let goal = |complete, updated, available| {
        Goal::AsBefore(Completeness {
            complete,
            updated,
            available,
        })
    };
    let mut counts = moving().counts;
    assert!(!goal(true, 3, 3).reached(&counts), "it was complete");
    assert!(goal(false, 1, 3).reached(&counts), "it was as far as this");
    assert!(!goal(false, 2, 3).reached(&counts));
    counts.wanted = 1;
    assert!(
        goal(false, 2, 3).reached(&counts),
        "fewer are wanted by now"
    );
    counts.observed = false;
    assert!(!goal(false, 1, 3).reached(&counts), "the numbers are old");
}

#[test]
fn a_pod_on_its_way_out_does_not_count() {
    let leaving = json!({"metadata": {"name": "p", "deletionTimestamp": "2026-11-24T09:00:00Z"}});
    assert_eq!(Pod::read(&leaving), None);
}

#[test]
fn a_pod_whose_node_is_gone_is_told_with_its_node() {
    let gone = Pod::read(&json!({
        "metadata": {"name": "p-1"},
        "spec": {"nodeName": "worker-7"},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "state": {"running": {}}}],
        },
    }));
    let pods: Vec<Pod> = gone.into_iter().collect();
    let mut watch = watch();
    look(&mut watch, &moving(), &pods, 0);
    let evidence = stuck(look(&mut watch, &moving(), &pods, 121))
        .failure
        .evidence;
    assert!(
        evidence.iter().any(|line| line
            == "pod p-1 on node worker-7: its containers are ready and it is not, as when its node is gone"),
        "{evidence:?}"
    );
}
