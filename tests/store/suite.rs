//! The laws of the store. Each case takes a fresh one and does not know which.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::store::lossy::{Lossy, Really};
use aldis_control_plane::store::{
    Commit, Error, Event, Group, Key, Outcome, Precondition, Revision, Store, Write,
};
use anyhow::{Context, ensure};

use crate::bench::{Bench, PATIENCE, create, next, next_change, tell, write};

pub(crate) async fn a_record_is_created_changed_and_deleted_by_compare(
    bench: &Bench,
) -> anyhow::Result<()> {
    let store = &bench.store;
    let key = Key::raw("/a");
    ensure!(store.get(&key).await?.is_none());

    ensure!(store.commit(create("/a", "1")).await?.is_committed());
    ensure!(
        !store.commit(create("/a", "2")).await?.is_committed(),
        "created twice"
    );
    let first = store.get(&key).await?.context("created")?;
    ensure!(first.created == first.modified && first.lease.is_none());

    let change = |at| Commit {
        preconditions: vec![Precondition::Modified {
            key: key.clone(),
            at,
        }],
        writes: vec![Write::put(key.clone(), "3")],
    };
    ensure!(store.commit(change(first.modified)).await?.is_committed());
    ensure!(
        !store.commit(change(first.modified)).await?.is_committed(),
        "a stale write"
    );
    let second = store.get(&key).await?.context("changed")?;
    ensure!(second.created == first.created && second.modified > first.modified);

    let delete = Commit {
        preconditions: vec![
            Precondition::Created {
                key: key.clone(),
                at: first.created,
            },
            Precondition::Exists(key.clone()),
        ],
        writes: vec![Write::delete(key.clone())],
    };
    ensure!(store.commit(delete.clone()).await?.is_committed());
    ensure!(
        !store.commit(delete.clone()).await?.is_committed(),
        "deleted twice"
    );
    ensure!(store.get(&key).await?.is_none());

    ensure!(store.commit(create("/a", "4")).await?.is_committed());
    ensure!(
        !store.commit(delete).await?.is_committed(),
        "another life of the key"
    );
    Ok(())
}

pub(crate) async fn a_conflict_writes_nothing(bench: &Bench) -> anyhow::Result<()> {
    bench.put("/there", "x").await?;
    let before = bench.store.read_revision().await?;
    let commit = Commit {
        preconditions: vec![
            Precondition::Exists(Key::raw("/there")),
            Precondition::Exists(Key::raw("/not-there")),
        ],
        writes: vec![
            Write::put(Key::raw("/new"), "1"),
            Write::delete(Key::raw("/there")),
        ],
    };
    let outcome = bench.store.commit(commit).await?;
    ensure!(outcome == Outcome::Conflict { revision: before });
    ensure!(bench.value("/there").await?.is_some() && bench.value("/new").await?.is_none());
    Ok(())
}

pub(crate) async fn revisions_rise_by_one_with_each_transaction_that_writes(
    bench: &Bench,
) -> anyhow::Result<()> {
    let first = bench.put("/a", "1").await?;
    let both = Commit {
        preconditions: Vec::new(),
        writes: vec![
            Write::put(Key::raw("/b"), "1"),
            Write::put(Key::raw("/c"), "1"),
        ],
    };
    let second = bench.store.commit(both).await?.revision();
    ensure!(second == Revision(first.0 + 1), "two writes, one revision");

    let nothing = Commit {
        preconditions: Vec::new(),
        writes: vec![Write::delete(Key::raw("/none"))],
    };
    ensure!(bench.store.commit(nothing).await?.is_committed());
    ensure!(bench.store.commit(Commit::default()).await?.is_committed());
    ensure!(
        bench.store.read_revision().await? == second,
        "nothing was written"
    );
    ensure!(bench.store.list("/").await?.revision == second);
    Ok(())
}

pub(crate) async fn a_group_outlives_one_conflict(bench: &Bench) -> anyhow::Result<()> {
    bench.put("/2", "theirs").await?;
    let commits = ["/1", "/2", "/3"].map(|key| create(key, "ours")).to_vec();
    let group = Group {
        fence: vec![Precondition::Exists(Key::raw("/2"))],
        commits,
    };
    let outcomes = bench.store.commit_group(group).await?;
    let written: Vec<bool> = outcomes.iter().map(|one| one.is_committed()).collect();
    ensure!(written == [true, false, true], "{written:?}");
    ensure!(bench.value("/2").await?.as_deref() == Some("theirs"));
    ensure!(bench.value("/3").await?.as_deref() == Some("ours"));
    Ok(())
}

pub(crate) async fn a_failed_fence_stops_a_whole_group(bench: &Bench) -> anyhow::Result<()> {
    let group = Group {
        fence: vec![Precondition::Exists(Key::raw("/leader"))],
        commits: vec![create("/1", "x"), write("/2", "x")],
    };
    let outcomes = bench.store.commit_group(group).await?;
    ensure!(outcomes.len() == 2 && outcomes.iter().all(|one| !one.is_committed()));
    ensure!(bench.store.list("/").await?.records.is_empty());
    Ok(())
}

pub(crate) async fn a_group_acts_as_if_one_after_the_other(bench: &Bench) -> anyhow::Result<()> {
    let needs_first = Commit {
        preconditions: vec![Precondition::Exists(Key::raw("/1"))],
        writes: vec![Write::put(Key::raw("/2"), "x")],
    };
    let group = Group {
        fence: Vec::new(),
        commits: vec![
            create("/1", "a"),
            needs_first,
            create("/1", "again"),
            write("/1", "b"),
        ],
    };
    let outcomes = bench.store.commit_group(group).await?;
    let written: Vec<bool> = outcomes.iter().map(|one| one.is_committed()).collect();
    ensure!(written == [true, true, false, true], "{written:?}");
    ensure!(bench.value("/1").await?.as_deref() == Some("b"));
    Ok(())
}

pub(crate) async fn a_group_may_be_larger_than_a_transaction(bench: &Bench) -> anyhow::Result<()> {
    bench.put("/leader", "us").await?;
    bench.put("/k/0200", "theirs").await?;
    let commits = (0..300).map(|number| create(&format!("/k/{number:04}"), "ours"));
    let group = Group {
        fence: vec![Precondition::Exists(Key::raw("/leader"))],
        commits: commits.collect(),
    };
    let outcomes = bench.store.commit_group(group).await?;
    ensure!(outcomes.len() == 300);
    for (number, outcome) in outcomes.iter().enumerate() {
        ensure!(outcome.is_committed() == (number != 200), "{number}");
    }

    let large = "x".repeat(300_000);
    let commits = (0..8).map(|number| create(&format!("/large/{number}"), &large));
    let group = Group {
        fence: Vec::new(),
        commits: commits.collect(),
    };
    let outcomes = bench.store.commit_group(group).await?;
    ensure!(outcomes.iter().all(|outcome| outcome.is_committed()));
    ensure!(bench.store.list("/large/").await?.records.len() == 8);
    Ok(())
}

pub(crate) async fn what_is_too_large_is_refused(bench: &Bench) -> anyhow::Result<()> {
    let puts = |count: usize| Commit {
        preconditions: Vec::new(),
        writes: (0..count)
            .map(|number| Write::put(Key::raw(format!("/{number}")), "x"))
            .collect(),
    };
    ensure!(
        bench.store.commit(puts(128)).await?.is_committed(),
        "a full transaction"
    );
    let twice = Commit {
        preconditions: Vec::new(),
        writes: vec![
            Write::put(Key::raw("/a"), "1"),
            Write::put(Key::raw("/a"), "2"),
        ],
    };
    for commit in [puts(129), write("/a", &"x".repeat(1 << 20)), twice] {
        let refused = bench.store.commit(commit).await;
        ensure!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
    ensure!(bench.value("/a").await?.is_none());
    Ok(())
}

pub(crate) async fn pages_follow_each_other_to_the_end_of_a_prefix(
    bench: &Bench,
) -> anyhow::Result<()> {
    for key in ["/p/a", "/p/b", "/p/b/c", "/p/d", "/p/e", "/p", "/p0"] {
        bench.put(key, "x").await?;
    }
    let (mut behind, mut seen) = (None, Vec::new());
    loop {
        let page = bench.store.list_page("/p/", behind.as_ref(), 2).await?;
        seen.push(page.len());
        match page.last() {
            Some(last) => behind = Some(last.key.clone()),
            None => break,
        }
    }
    ensure!(seen == [2, 2, 1, 0], "{seen:?}");
    ensure!(behind == Some(Key::raw("/p/e")), "{behind:?}");
    Ok(())
}

pub(crate) async fn a_listing_pages_at_one_revision(bench: &Bench) -> anyhow::Result<()> {
    let commits = (0..3000).map(|number| create(&format!("/k/{number:04}"), "x"));
    let group = Group {
        fence: Vec::new(),
        commits: commits.collect(),
    };
    bench.store.commit_group(group).await?;
    bench.put("/k", "not below").await?;
    bench.put("/k0", "behind").await?;

    // Somebody moves a mark from the front to the end, in one transaction, while we list.
    let store = bench.store.clone();
    let mover = tokio::spawn(async move {
        for round in 0..200_u32 {
            let (from, to) = if round % 2 == 0 {
                ("/k/~", "/k/!")
            } else {
                ("/k/!", "/k/~")
            };
            let commit = Commit {
                preconditions: Vec::new(),
                writes: vec![
                    Write::delete(Key::raw(from)),
                    Write::put(Key::raw(to), "mark"),
                ],
            };
            store.commit(commit).await?;
        }
        anyhow::Ok(())
    });
    let mut listed = 0;
    while !mover.is_finished() || listed == 0 {
        let listing = bench.store.list("/k/").await?;
        let marks = listing.records.len().abs_diff(3000);
        ensure!(marks <= 1, "{} records", listing.records.len());
        let sorted = listing.records.is_sorted_by(|one, two| one.key < two.key);
        ensure!(
            sorted
                && listing
                    .records
                    .iter()
                    .all(|one| one.modified <= listing.revision)
        );
        listed += 1;
    }
    mover.await??;
    ensure!(bench.store.list("/k/").await?.records.len() == 3001);
    Ok(())
}

pub(crate) async fn a_watch_resumes_from_a_revision(bench: &Bench) -> anyhow::Result<()> {
    bench.put("/w/a", "1").await?;
    let seen = bench.store.list("/w/").await?.revision;
    bench.put("/w/a", "2").await?;
    bench.put("/other", "x").await?;
    let delete = Commit {
        preconditions: Vec::new(),
        writes: vec![Write::delete(Key::raw("/w/a"))],
    };
    let deleted = bench.store.commit(delete).await?.revision();

    let mut watch = bench.store.watch(vec!["/w/".to_owned()], seen).await?;
    ensure!(tell(&next_change(&mut watch).await?) == "/w/a=2");
    let gone = next_change(&mut watch).await?;
    ensure!(tell(&gone) == "/w/a gone");
    ensure!(matches!(gone, Event::Changed { revision, .. } if revision == deleted));

    let revision = bench.put("/w/b", "3").await?;
    let Event::Changed {
        record: Some(record),
        ..
    } = next_change(&mut watch).await?
    else {
        anyhow::bail!("no record")
    };
    ensure!(record.modified == revision && record.created == revision);
    ensure!(Some(record) == bench.store.get(&Key::raw("/w/b")).await?);
    Ok(())
}

pub(crate) async fn progress_comes_after_all_that_happened(bench: &Bench) -> anyhow::Result<()> {
    let start = bench.put("/a/before", "x").await?;
    let prefixes = vec!["/a/".to_owned(), "/b/".to_owned()];
    let mut watch = bench.store.watch(prefixes, start).await?;
    watch.progress().request();
    let idle = next(&mut watch).await?;
    ensure!(
        idle == Event::Progress { revision: start },
        "nothing happened: {idle:?}"
    );
    for number in 0..20 {
        bench.put(&format!("/a/{number}"), "x").await?;
        bench.put(&format!("/b/{number}"), "x").await?;
        bench.put("/unwatched", "x").await?;
    }
    let written = bench.store.read_revision().await?;
    let mut changes = 0;
    loop {
        watch.progress().request();
        let event = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
        match event.ok().flatten().transpose()? {
            Some(Event::Changed { .. }) => changes += 1,
            Some(Event::Progress { revision }) if revision >= written => break,
            Some(Event::Progress { .. }) | None => {}
            Some(Event::Reset { .. }) => anyhow::bail!("a reset of a healthy watch"),
        }
    }
    ensure!(changes == 40, "{changes} changes before the progress");
    Ok(())
}

/// Longer than any peer takes to lose patience with a silent connection.
pub(crate) async fn a_silent_watch_lives(bench: &Bench) -> anyhow::Result<()> {
    let start = bench.put("/w/a", "x").await?;
    let mut watch = bench.store.watch(vec!["/w/".to_owned()], start).await?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    bench.put("/w/b", "x").await?;
    ensure!(
        tell(&next_change(&mut watch).await?) == "/w/b=x",
        "it broke and was reset"
    );
    Ok(())
}

pub(crate) async fn a_compacted_watch_is_reset(bench: &Bench) -> anyhow::Result<()> {
    let old = bench.put("/w/a", "1").await?;
    bench.put("/w/b", "2").await?;
    let last = bench.put("/w/a", "3").await?;
    bench.put("/other", "4").await?;
    bench.store.compact(last).await?;
    bench
        .store
        .compact(old)
        .await
        .context("compacted already")?;
    let future = bench.store.compact(Revision(last.0 + 100)).await;
    ensure!(matches!(future, Err(Error::Refused { .. })), "{future:?}");

    let mut watch = bench.store.watch(vec!["/w/".to_owned()], old).await?;
    let Event::Reset { records, revision } = next_change(&mut watch).await? else {
        anyhow::bail!("no reset")
    };
    ensure!(records == bench.store.list("/w/").await?.records && records.len() == 2);
    ensure!(revision >= last);
    bench.put("/w/c", "5").await?;
    ensure!(
        tell(&next_change(&mut watch).await?) == "/w/c=5",
        "it goes on"
    );

    let mut watch = bench.store.watch(vec!["/w/".to_owned()], last).await?;
    ensure!(
        tell(&next_change(&mut watch).await?) == "/w/c=5",
        "what is kept is told"
    );
    Ok(())
}

pub(crate) async fn the_end_of_a_lease_deletes_its_keys(bench: &Bench) -> anyhow::Result<()> {
    let store = &bench.store;
    let lease = store.grant(Duration::from_secs(1)).await?;
    let put = |key: &str| Commit {
        preconditions: Vec::new(),
        writes: vec![Write::Put {
            key: Key::raw(key),
            value: "x".into(),
            lease: Some(lease),
        }],
    };
    store.commit(put("/l/gone")).await?;
    store.commit(put("/l/kept")).await?;
    let before = bench.put("/l/kept", "taken off its lease").await?;
    let held = store.get(&Key::raw("/l/gone")).await?.context("held")?;
    ensure!(held.lease == Some(lease));

    let mut watch = store.watch(vec!["/l/".to_owned()], before).await?;
    let told = tell(&next_change(&mut watch).await?);
    ensure!(told == "/l/gone gone", "without anybody calling: {told}");
    ensure!(bench.value("/l/gone").await?.is_none());
    ensure!(bench.value("/l/kept").await?.is_some());
    ensure!(store.keep_alive(lease).await?.is_zero(), "a lost lease");
    let refused = store.commit(put("/l/late")).await;
    ensure!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    Ok(())
}

pub(crate) async fn a_lease_kept_alive_goes_on(bench: &Bench) -> anyhow::Result<()> {
    let store = &bench.store;
    let lease = store.grant(Duration::from_secs(2)).await?;
    let put = Commit {
        preconditions: Vec::new(),
        writes: vec![Write::Put {
            key: Key::raw("/l"),
            value: "x".into(),
            lease: Some(lease),
        }],
    };
    store.commit(put).await?;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let left = store.keep_alive(lease).await?;
        ensure!(
            left > Duration::ZERO && left <= Duration::from_secs(2),
            "{left:?}"
        );
    }
    ensure!(bench.value("/l").await?.is_some());
    Ok(())
}

pub(crate) async fn a_revoked_lease_takes_its_keys_and_no_others(
    bench: &Bench,
) -> anyhow::Result<()> {
    let store = &bench.store;
    for name in ["/one", "/two"] {
        let lease = store.grant(Duration::from_secs(60)).await?;
        let put = Commit {
            preconditions: Vec::new(),
            writes: vec![Write::Put {
                key: Key::raw(name),
                value: "x".into(),
                lease: Some(lease),
            }],
        };
        store.commit(put).await?;
    }
    let one = store.get(&Key::raw("/one")).await?.context("held")?;
    let lease = one.lease.context("leased")?;
    store.revoke(lease).await?;
    store.revoke(lease).await.context("revoked twice")?;
    ensure!(bench.value("/one").await?.is_none() && bench.value("/two").await?.is_some());
    Ok(())
}

pub(crate) async fn a_lost_reply_is_unknown_either_way(bench: &Bench) -> anyhow::Result<()> {
    for (key, really) in [("/yes", Really::Written), ("/no", Really::NotWritten)] {
        let lossy = Lossy::losing(bench.store.clone(), 2, really);
        ensure!(lossy.commit(write("/first", "x")).await?.is_committed());
        let lost = lossy.commit(create(key, "x")).await;
        ensure!(matches!(lost, Err(Error::Unknown { .. })), "{lost:?}");
        let written = lossy.get(&Key::raw(key)).await?.is_some();
        ensure!(written == (really == Really::Written));

        let lossy: Arc<dyn Store> = Arc::new(Lossy::losing(bench.store.clone(), 1, really));
        let group = Group {
            fence: Vec::new(),
            commits: vec![write(key, "again")],
        };
        let lost = tokio::time::timeout(PATIENCE, lossy.commit_group(group)).await?;
        ensure!(matches!(lost, Err(Error::Unknown { .. })), "{lost:?}");
    }
    Ok(())
}
