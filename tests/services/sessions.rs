//! Who may speak for a cluster, and what is believed of what they say.

use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::leadership::raise_incarnation;
use aldis_control_plane::records::{self, Session};
use aldis_control_plane::store::{Commit, Precondition, Store, Write, keys};
use aldis_core::ids::{Attempt, Fence};
use aldis_core::job::{Direction, Report};
use aldis_core::reconcile::Listed;
use aldis_proto::convert::document;
use aldis_proto::v1;
use aldis_proto::v1::session_request::Message as Out;
use aldis_proto::v1::session_response::Message as In;
use aldis_tests::etcd;
use aldis_tests::plane::Plane;

use crate::by_hand::{Who, shown};

const ONE: &str = "eu-west/prod-1";
const TWO: &str = "eu-west/prod-2";
const THREE: &str = "us-east/prod-1";

fn of_a_later_leader(target: &str) -> Who {
    let highest = Fence {
        incarnation: 0,
        epoch: 1_000,
    };
    Who {
        highest,
        ..Who::new(target)
    }
}

async fn raise(etcd: &etcd::Server) {
    let store = etcd.store().await.unwrap();
    raise_incarnation(&store, &SystemClock, 0, "restored")
        .await
        .unwrap();
}

fn attempt(job: &str) -> Listed {
    Listed {
        job: job.into(),
        attempt: Attempt(1),
        direction: Direction::Forward,
        segment: 0,
        steps: Default::default(),
        outcome: None,
        acknowledged: false,
    }
}

#[tokio::test]
async fn a_process_that_moves_keeps_its_journal_though_it_reported_meanwhile() {
    let plane = Plane::start().await.unwrap();
    let who = Who {
        sequence: 10,
        ..Who::new(ONE)
    };
    let mut old = who.register_with(&plane).await;
    // What it says once it is asked is recorded, as a report would be.
    old.who.sequence = 12;
    old.is_granted().await.unwrap();
    let (mut new, first) = who.try_register(&plane).await.unwrap();
    assert!(matches!(first, In::Registered(_)), "{first:?}");
    new.who.sequence = 12;
    new.is_granted().await.unwrap();

    // And what is recorded did not fall with that registration.
    let restarted = Who {
        process: "another".to_owned(),
        sequence: 11,
        ..who
    };
    let (_, first) = restarted.try_register(&plane).await.unwrap();
    assert!(matches!(first, In::SetAside(_)), "{first:?}");
}

#[tokio::test]
async fn a_hold_outlives_registrations_and_merges_and_ends_with_the_incarnation() {
    let etcd = etcd::Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 1).await.unwrap();
    let mut held = of_a_later_leader(ONE).register_with(&plane).await;
    held.is_refused("it has seen leader 0.1000").await.unwrap();
    assert_eq!(shown(&plane, ONE).await.state, "held");

    // Another process of it, that has seen nothing: its word changes nothing.
    let innocent = Who {
        process: "another".to_owned(),
        ..Who::new(ONE)
    };
    let mut held = innocent.register_with(&plane).await;
    held.is_refused("it has seen leader 0.1000").await.unwrap();

    raise(&etcd).await;
    let mut free = innocent.register_with(&plane).await;
    while free.is_granted().await.is_err() {
        // The leader of the old life exits, and its streams with it.
        free = innocent.register_with(&plane).await;
    }
    assert_eq!(shown(&plane, ONE).await.state, "live");
}

#[tokio::test]
async fn on_the_word_of_two_agents_nobody_gets_a_permit() {
    let plane = Plane::start().await.unwrap();
    let mut healthy = Who::new(THREE).register_with(&plane).await;
    healthy.is_granted().await.unwrap();
    let _one = of_a_later_leader(ONE).register_with(&plane).await;
    healthy.is_granted().await.unwrap();
    let _two = of_a_later_leader(TWO).register_with(&plane).await;
    let refused = healthy.asks_until_refused("all dispatch is stopped").await;
    refused.unwrap();
}

#[tokio::test]
async fn a_report_of_work_that_the_store_does_not_know_is_shown_and_holds_its_agent() {
    let etcd = etcd::Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 1).await.unwrap();
    let mut agent = Who::new(ONE).register_with(&plane).await;
    agent.is_granted().await.unwrap();
    let lost = format!("j-{}", "0".repeat(32));
    agent.who.attempts = vec![attempt(&lost)];
    agent
        .send(Out::Report(v1::ReportFrame {
            job: lost.clone(),
            attempt: 1,
            sequence: 5,
            report: Some(document(&Report::Accepted)),
        }))
        .await;
    let refused = agent
        .asks_until_refused("which the store does not know")
        .await;
    refused.unwrap();
    let info = shown(&plane, ONE).await;
    assert_eq!(info.state, "held");
    assert!(info.orphans[0].contains(&lost), "{:?}", info.orphans);

    raise(&etcd).await;
    let who = agent.who.clone();
    let mut agent = who.register_with(&plane).await;
    while agent.is_granted().await.is_err() {
        agent = who.register_with(&plane).await;
    }
    let info = shown(&plane, ONE).await;
    assert_eq!(info.state, "live");
    assert!(info.orphans[0].contains(&lost), "still shown: {info:?}");
}

#[tokio::test]
async fn a_stream_whose_session_was_given_up_ends() {
    let etcd = etcd::Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 1).await.unwrap();
    let mut agent = Who::new(ONE).register_with(&plane).await;
    agent.is_granted().await.unwrap();

    let store = etcd.store().await.unwrap();
    let record = store.get(&keys::session(ONE)).await.unwrap().unwrap();
    let given_up = Session {
        replica: String::new(),
        ..records::read(&record).unwrap()
    };
    let commit = Commit {
        preconditions: vec![Precondition::unchanged(&record.key, Some(&record))],
        writes: vec![Write::put(record.key.clone(), records::write(&given_up))],
    };
    assert!(store.commit(commit).await.unwrap().is_committed());
    let ended = agent.is_ended().await;
    assert!(ended.message().contains("given up"), "{ended:?}");
}

#[tokio::test]
async fn a_session_that_the_store_has_lost_ends() {
    let etcd = etcd::Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 1).await.unwrap();
    let mut agent = Who::new(ONE).register_with(&plane).await;
    agent.is_granted().await.unwrap();
    let store = etcd.store().await.unwrap();
    let commit = Commit {
        preconditions: vec![],
        writes: vec![Write::delete(keys::session(ONE))],
    };
    assert!(store.commit(commit).await.unwrap().is_committed());
    let ended = agent.is_ended().await;
    assert!(ended.message().contains("does not know"), "{ended:?}");
}

#[tokio::test]
async fn of_two_processes_with_one_identity_neither_gets_a_permit_until_one_is_silent() {
    let plane = Plane::start().await.unwrap();
    let one = Who::new(ONE);
    let two = Who {
        process: "a clone".to_owned(),
        machine: "of another machine".to_owned(),
        journal: "its own".to_owned(),
        ..one.clone()
    };
    one.register_with(&plane).await.is_granted().await.unwrap();
    let why = "two processes use the identity";
    let mut second = two.register_with(&plane).await;
    second.is_refused(why).await.unwrap();
    let mut first = one.register_with(&plane).await;
    first.is_refused(why).await.unwrap();
    assert!(second.is_ended().await.message().contains("took its place"));
    assert_eq!(shown(&plane, ONE).await.state, "contested");
    // The other one says nothing any more.
    first.is_granted().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_leaves_asks_its_agents_to_move_and_takes_in_no_other() {
    let plane = Plane::start().await.unwrap();
    let mut agent = Who::new(ONE).register_with(&plane).await;
    agent.is_granted().await.unwrap();
    let other = Who::new(TWO);
    let connection = other.connect(&plane).await.unwrap();
    let leaving = tokio::spawn(plane.stop());
    let moved = |frame: &In| matches!(frame, In::Move(_)).then_some(());
    agent.find(moved).await.unwrap();
    let refused = other.try_register_over(connection).await.err().unwrap();
    assert!(refused.message().contains("leaving"), "{refused:?}");
    drop(agent);
    leaving.await.unwrap().unwrap();
}
