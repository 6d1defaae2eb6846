//! Seeded stories of the whole system, in weather.
//!
//! A leader, a second replica, agents, operators and a store, on one thread and in time that is only
//! counted. The same seed tells the same story twice ([`the_same_seed_tells_the_same_story`]).
//!
//! | real | stands in for something |
//! |---|---|
//! | `core`: every decision | `chance.rs`, `clock.rs`: the kernel's randomness and clocks |
//! | control plane: elections, fence, view, leader's loop, merge, locks, sessions, orders, reports, permits, services, one hop; the embedded store, in memory | `link.rs`: the network to the store |
//! | agent: session, desk, runner, ledger, journal with its frames, reports, permits, planner | `network.rs`: mutual TLS, HTTP/2, gRPC servers; `disk.rs`: the file system |
//! | | `cluster.rs`: Kubernetes and the actions on it |
//!
//! Not here: etcd (its adapter, restored backups), TLS, log streams, the command line, real clusters.
//! `witness.rs` lists what is held after every event.
//!
//! `ALDIS_SIM_SEED=7 cargo test -p aldis-tests --test sim story -- --exact --nocapture` tells one seed with
//! its history; `ALDIS_SIM_SEEDS=5000` tells more of them.

mod agent;
mod chance;
mod clock;
mod cluster;
mod disk;
mod history;
mod link;
mod network;
mod regressions;
mod replica;
mod runbooks;
mod stories;
mod telling;
mod witness;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const CUT: &str = "cut";
const CANCELLED: &str = "cancelled";
const NOT_DONE: &str = "not-done";
const COPIED: &str = "copied";
const ANSWERED_FOR: &str = "answered-for";
const BACK_AFTER_THE_END: &str = "back-after-the-end";
const LATE: &str = "late";
const ONE_WRITE: &str = "one-write";
const TAKEN_FOR_GONE: &str = "taken-for-gone";

/// In a process that was started for it, tells a story; for a person, the story of the seed they ask for.
#[test]
fn story() {
    let Some(name) = telling::story() else {
        let told = telling::tell("seed", telling::asked_for().unwrap_or(1));
        print_text(&told.text);
        assert!(told.kept, "{}", told.failure());
        return;
    };
    let seed = telling::seed().expect("a story has a seed");
    std::panic::set_hook(Box::new(|panic| {
        let history = world::HISTORY.get().map(history::History::text);
        print_text(&format!("{}\n{panic}\n", history.unwrap_or_default()));
        std::process::exit(101);
    }));
    // What the programs say of themselves, for whoever looks into a failure. On a thread of its own: it
    // draws, and must not change the story.
    let listening = std::thread::spawn(|| {
        if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_default_env() {
            tracing_subscriber::fmt().with_env_filter(filter).init();
        }
    });
    listening.join().expect("a filter that can be read");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match name.as_str() {
            "seed" => stories::of_seed(seed).await,
            CUT => regressions::cut_after_it_was_reported(seed).await,
            CANCELLED => regressions::cancelled_over_a_cut_journal(seed).await,
            NOT_DONE => regressions::lands_after_an_honest_not_done(seed).await,
            COPIED => regressions::copied_in_the_middle(seed).await,
            ANSWERED_FOR => regressions::goes_on_with_an_attempt_that_was_answered_for(seed).await,
            BACK_AFTER_THE_END => regressions::is_back_after_the_end_of_its_job(seed).await,
            LATE => regressions::a_decision_is_written_late(seed).await,
            ONE_WRITE => regressions::deferred_and_opened_in_one_write(seed).await,
            TAKEN_FOR_GONE => regressions::back_after_it_was_taken_for_gone(seed).await,
            other => panic!("there is no story `{other}`"),
        }
    });
    let history = world::HISTORY.get().map(history::History::text);
    print_text(&format!("{}\n", history.unwrap_or_default()));
}

/// Not by `print!`, which a test run may keep for itself.
fn print_text(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Nobody to tell it to is no failure of the story.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

#[test]
fn no_seed_breaks_a_promise() {
    if telling::story().is_some() {
        return;
    }
    let (next, failures) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    let seeds = telling::seeds();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let told = telling::tell("seed", seed);
                    if !told.kept {
                        failures.lock().expect("no thread panics").push(told);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no thread panics");
    failures.sort_by_key(|told| told.seed);
    let broken: Vec<u64> = failures.iter().map(|told| told.seed).collect();
    if let Some(first) = failures.first() {
        panic!(
            "{}\n\nseeds that broke a promise: {broken:?}",
            first.failure()
        );
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    if telling::story().is_some() {
        return;
    }
    for seed in [1, 2, 3] {
        let (first, second) = (telling::tell("seed", seed), telling::tell("seed", seed));
        assert_eq!(first.digest(), second.digest(), "seed {seed}");
    }
}

/// Tells a story with each of the first seeds.
fn holds(story: &str, seeds: u64) {
    if telling::story().is_some() {
        return;
    }
    for seed in 1..=seeds {
        let told = telling::tell(story, seed);
        assert!(told.kept, "{story}: {}", told.failure());
    }
}

#[test]
fn a_journal_cut_after_it_was_reported_is_set_aside_and_nothing_runs_twice() {
    holds(CUT, 6);
}

#[test]
fn a_cancel_over_a_cut_journal_never_calls_an_effect_on_its_way_untouched() {
    holds(CANCELLED, 6);
}

#[test]
fn an_effect_that_lands_after_an_honest_not_done_is_not_made_again() {
    holds(NOT_DONE, 6);
}

#[test]
fn a_copied_agent_runs_nothing_again() {
    holds(COPIED, 6);
}

#[test]
fn a_replica_back_after_it_was_taken_for_gone_gives_its_agents_up() {
    holds(TAKEN_FOR_GONE, 3);
}

#[test]
fn an_attempt_that_an_operator_answered_for_is_not_run_beside_the_next() {
    holds(ANSWERED_FOR, 12);
}

#[test]
fn an_agent_back_after_the_end_of_its_job_begins_nothing_of_it() {
    holds(BACK_AFTER_THE_END, 3);
}

#[test]
fn a_decision_that_is_written_late_is_not_written_beside_the_next() {
    holds(LATE, 8);
}

#[test]
fn an_order_is_sent_also_where_its_record_is_seen_after_others_of_its_write() {
    holds(ONE_WRITE, 12);
}
