//! Elections, fences and the incarnation, on a real store.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::leadership::{
    Error, FORMAT, FencedTxn, Leader, Leadership, Role, Settings, Token, check_format, incarnation,
    raise_incarnation,
};
use aldis_control_plane::store::lossy::{Lossy, Really};
use aldis_control_plane::store::{Key, Store, keys};
use anyhow::{Context, bail, ensure};
use tokio::sync::watch;

use crate::bench::{Bench, PATIENCE, create, write};

pub(crate) async fn of_two_candidates_one_wins(bench: &Bench) -> anyhow::Result<()> {
    for epoch in 1..=3 {
        let (one, two) = (start(&bench.store, "one"), start(&bench.store, "two"));
        let (mut first, mut second) = (one.role(), two.role());
        let (token, mut other) = tokio::select! {
            token = leads(&mut first) => (token?, second),
            token = leads(&mut second) => (token?, first),
        };
        follows(&mut other).await?;
        ensure!(
            token.epoch == epoch,
            "epoch {} in round {epoch}",
            token.epoch
        );
        let stored = bench.value(keys::epoch().as_str()).await?;
        ensure!(
            stored == Some(epoch.to_string()),
            "the epoch rose once: {stored:?}"
        );
        // Both crash, and the lease of the one that led ends as an outsider would end it.
        drop((one, two));
        bench.store.revoke(token.lease).await?;
    }
    Ok(())
}

pub(crate) async fn a_leader_that_steps_down_is_followed(bench: &Bench) -> anyhow::Result<()> {
    let one = start(&bench.store, "one");
    let first = leads(&mut one.role()).await?;
    let two = start(&bench.store, "two");
    let mut role = two.role();
    follows(&mut role).await?;
    ensure!(
        matches!(&*role.borrow(), Role::Standby { leader: Some(leader) } if leader.replica == "one")
    );

    one.step_down().await;
    ensure!(!first.is_live(&SystemClock), "a token outlived its term");
    let second = tokio::time::timeout(Duration::from_secs(2), leads(&mut role))
        .await
        .context("waited for the lease to end by itself")??;
    ensure!(second.epoch == first.epoch + 1 && second.created > first.created);
    Ok(())
}

pub(crate) async fn a_deposed_leader_writes_nothing(bench: &Bench) -> anyhow::Result<()> {
    let one = start(&bench.store, "one");
    let mut role = one.role();
    let token = leads(&mut role).await?;
    let fenced = FencedTxn::new(&token, &SystemClock)?;
    ensure!(
        fenced
            .commit(&*bench.store, create("/x", "1"))
            .await?
            .is_committed()
    );
    let fenced = FencedTxn::new(&token, &SystemClock)?;
    let conflict = fenced.commit(&*bench.store, create("/x", "2")).await?;
    ensure!(!conflict.is_committed(), "a conflict is no deposition");
    ensure!(token.is_live(&SystemClock));

    // It made its transactions before, and does not know what happens next.
    let late = FencedTxn::new(&token, &SystemClock)?;
    let later = FencedTxn::new(&token, &SystemClock)?;
    bench.store.revoke(token.lease).await?;
    let two = start(&bench.store, "two");
    let other = leads(&mut two.role()).await?;
    ensure!(other.epoch == token.epoch + 1);

    let refused = late.commit(&*bench.store, write("/y", "late")).await;
    ensure!(
        matches!(refused, Err(Error::Deposed { epoch: 1 })),
        "{refused:?}"
    );
    let commits = vec![write("/y", "late"), write("/z", "late")];
    let refused = later.commit_group(&*bench.store, commits).await;
    ensure!(matches!(refused, Err(Error::Deposed { .. })), "{refused:?}");
    ensure!(bench.value("/y").await?.is_none() && bench.value("/z").await?.is_none());
    ensure!(FencedTxn::new(&token, &SystemClock).is_err());
    lost(&mut role).await?;
    Ok(())
}

pub(crate) async fn a_revoked_lease_ends_a_term(bench: &Bench) -> anyhow::Result<()> {
    let one = start(&bench.store, "one");
    let mut role = one.role();
    let token = leads(&mut role).await?;
    bench.store.revoke(token.lease).await?;
    lost(&mut role).await?;
    ensure!(!token.is_live(&SystemClock));
    Ok(())
}

pub(crate) async fn a_term_won_by_a_lost_reply_is_noticed(bench: &Bench) -> anyhow::Result<()> {
    for (round, really) in [(1, Really::Written), (2, Really::NotWritten)] {
        let lossy: Arc<dyn Store> = Arc::new(Lossy::losing(bench.store.clone(), 1, really));
        let one = start(&lossy, "one");
        let token = leads(&mut one.role()).await?;
        ensure!(token.epoch == round);
        let leader = bench.store.get(&keys::leader()).await?.context("leads")?;
        ensure!(leader.created == token.created && leader.lease == Some(token.lease));
        let fenced = FencedTxn::new(&token, &SystemClock)?;
        let key = format!("/round/{round}");
        ensure!(
            fenced
                .commit(&*bench.store, create(&key, "x"))
                .await?
                .is_committed()
        );
        one.step_down().await;
    }
    Ok(())
}

pub(crate) async fn raising_the_incarnation_deposes_the_leader(
    bench: &Bench,
) -> anyhow::Result<()> {
    let store = &bench.store;
    let one = start(store, "one");
    let mut role = one.role();
    let token = leads(&mut role).await?;
    ensure!(token.incarnation == 0);

    let raised = raise_incarnation(&**store, &SystemClock, 0, "restored from a backup").await?;
    ensure!(
        raised > 1_700_000_000,
        "at least the seconds of the wall clock"
    );
    lost(&mut role).await?;
    let above = raised + 1_000_000;
    ensure!(
        raise_incarnation(&**store, &SystemClock, above, "an agent has seen more").await?
            == above + 1
    );
    ensure!(incarnation(&**store).await?.reason == "an agent has seen more");

    let lossy = Lossy::losing(store.clone(), 1, Really::Written);
    let last = raise_incarnation(&lossy, &SystemClock, 0, "a lost reply").await?;
    ensure!(last == above + 2, "raised once although the reply was lost");

    let two = start(store, "two");
    let other = leads(&mut two.role()).await?;
    ensure!(other.incarnation == last && other.epoch == token.epoch + 1);
    ensure!(store.get(&Key::raw("/aldis/v1/leader")).await?.is_some());
    Ok(())
}

pub(crate) async fn a_store_of_a_later_build_is_led_by_nobody(bench: &Bench) -> anyhow::Result<()> {
    let store = &bench.store;
    check_format(&**store).await?;
    let one = start(store, "one");
    leads(&mut one.role()).await?;
    ensure!(bench.value(keys::format().as_str()).await? == Some(FORMAT.to_string()));
    check_format(&**store).await?;
    one.step_down().await;

    let later = (FORMAT + 1).to_string();
    store.commit(write(keys::format().as_str(), &later)).await?;
    let refused = check_format(&**store).await.expect_err("it is a later one");
    ensure!(
        refused.to_string().contains("run a newer build"),
        "{refused}"
    );
    let two = start(store, "two");
    let mut role = two.role();
    let led = tokio::time::timeout(Duration::from_secs(2), leads(&mut role)).await;
    ensure!(led.is_err(), "it leads over records that it does not know");
    Ok(())
}

/// A replica with a short lease.
pub(crate) fn start(store: &Arc<dyn Store>, replica: &str) -> Leadership {
    let leader = Leader {
        replica: replica.to_owned(),
        boot_id: format!("boot of {replica}"),
        address: "127.0.0.1:1".to_owned(),
    };
    let settings = Settings {
        ttl: Duration::from_secs(3),
        margin: Duration::from_millis(500),
        ..Settings::new(leader)
    };
    Leadership::start(store.clone(), Arc::new(SystemClock), settings)
}

/// Waits until a replica leads.
pub(crate) async fn leads(role: &mut watch::Receiver<Role>) -> anyhow::Result<Token> {
    let leading = role.wait_for(|role| matches!(role, Role::Leading(_)));
    let leading = tokio::time::timeout(PATIENCE, leading);
    match &*leading.await.context("nobody leads")?? {
        Role::Leading(token) => Ok(token.clone()),
        other => bail!("{other:?}"),
    }
}

async fn follows(role: &mut watch::Receiver<Role>) -> anyhow::Result<()> {
    let standby = role.wait_for(|role| matches!(role, Role::Standby { leader: Some(_) }));
    tokio::time::timeout(PATIENCE, standby)
        .await
        .context("it does not follow")??;
    Ok(())
}

async fn lost(role: &mut watch::Receiver<Role>) -> anyhow::Result<()> {
    let lost = role.wait_for(|role| matches!(role, Role::Lost { .. }));
    tokio::time::timeout(PATIENCE, lost)
        .await
        .context("it does not notice")??;
    Ok(())
}
