//! What a real etcd can do to us: freeze, die, come back older, ask for certificates.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::clock::{Clock, SystemClock};
use aldis_control_plane::leadership::{Role, raise_incarnation};
use aldis_control_plane::store::etcd::{Config, Etcd};
use aldis_control_plane::store::{CALL_TIMEOUT, Error, Event, Key, Outcome, Store, keys};
use aldis_control_plane::view::View;
use aldis_tests::etcd::{Certificates, Server};
use anyhow::{Context, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use crate::bench::{PATIENCE, create, next_change, put, tell, write};
use crate::terms::{leads, start};
use crate::views::fresh;

/// Room for a busy machine above a limit that is ours.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_etcd_is_unknown_in_time_and_recovers() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let store: Arc<dyn Store> = Arc::new(server.store().await?);
    let seen = put(&*store, "/w/a", "1").await?;
    let mut watch = store.watch(vec!["/w/".to_owned()], seen).await?;
    let view = View::start(store.clone(), Arc::new(SystemClock));
    fresh(&view).await?;

    server.freeze()?;
    let frozen = SystemClock.boot_now();
    let key = Key::raw("/w/a");
    let (read, wrote, kept) = tokio::join!(
        store.get(&key),
        store.commit(create("/w/b", "2")),
        store.read_revision(),
    );
    let took = SystemClock.boot_now() - frozen;
    ensure!(took < CALL_TIMEOUT + SLACK, "{took:?}");
    ensure!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");
    ensure!(matches!(kept, Err(Error::Unavailable { .. })), "{kept:?}");
    ensure!(matches!(wrote, Err(Error::Unknown { .. })), "{wrote:?}");
    let now = SystemClock.boot_now();
    ensure!(view.freshness(now).is_none(), "fresh on a frozen store");
    ensure!(view.stale_for(now) >= CALL_TIMEOUT - SLACK);

    // Long enough for the connection to be given up.
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.thaw()?;
    let outcome = tokio::time::timeout(PATIENCE, async {
        loop {
            match store.commit(create("/w/c", "3")).await {
                Ok(outcome) => return outcome,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    ensure!(matches!(
        outcome.await?,
        Outcome::Committed { .. } | Outcome::Conflict { .. }
    ));
    ensure!(store.get(&Key::raw("/w/c")).await?.is_some());
    // Whether the unknown write landed or not, the watch agrees with the store.
    loop {
        match next_change(&mut watch).await? {
            Event::Reset { records, .. }
                if records.iter().any(|one| one.key.as_str() == "/w/c") =>
            {
                break;
            }
            event if tell(&event) == "/w/c=3" => break,
            _ => {}
        }
    }
    fresh(&view).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_etcd_is_unavailable_and_its_watch_is_reset() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let store = server.store().await?;
    let seen = put(&store, "/w/a", "1").await?;
    let mut watch = store.watch(vec!["/w/".to_owned()], seen).await?;
    server.kill()?;
    // The first call may find the broken connection; from then on nothing can be sent.
    let first = store.commit(write("/w/b", "x")).await;
    ensure!(
        matches!(
            first,
            Err(Error::Unknown { .. } | Error::Unavailable { .. })
        ),
        "{first:?}"
    );
    for _ in 0..3 {
        let refused = store.commit(write("/w/b", "x")).await;
        ensure!(
            matches!(refused, Err(Error::Unavailable { .. })),
            "{refused:?}"
        );
    }
    server.run_again().await?;
    put(&store, "/w/c", "2").await?;
    let mut reset = false;
    loop {
        match next_change(&mut watch).await? {
            Event::Reset { records, .. } => {
                reset = true;
                if records.iter().any(|one| one.key.as_str() == "/w/c") {
                    break;
                }
            }
            event if tell(&event) == "/w/c=2" => break,
            _ => {}
        }
    }
    ensure!(reset, "resumed over a break");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_etcd_went_back() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let store: Arc<dyn Store> = Arc::new(server.store().await?);
    let replica = start(&store, "one");
    let mut role = replica.role();
    let before = leads(&mut role).await?;
    let view = View::start(store.clone(), Arc::new(SystemClock));
    put(&*store, "/aldis/v1/jobs/old/header", "x").await?;
    let snapshot = server.snapshot().await?;
    for number in 0..50 {
        put(&*store, "/aldis/v1/jobs/lost/header", &number.to_string()).await?;
    }
    let seen = store.read_revision().await?;
    fresh(&view).await?;

    server.restore(&snapshot).await?;
    let held = role.wait_for(|role| matches!(role, Role::Held { .. }));
    tokio::time::timeout(PATIENCE, held)
        .await
        .context("not held")??;
    ensure!(
        !before.is_live(&SystemClock),
        "decides on a store that went back"
    );
    let refused = store.get(&Key::raw("/x")).await;
    let Err(Error::WentBack { seen: highest, now }) = refused else {
        anyhow::bail!("{refused:?}")
    };
    ensure!(highest >= seen && now < seen, "{highest} {now}");

    // Others write, and bring the revision level again.
    let other = server.store().await?;
    for _ in 0..100 {
        put(&other, "/noise", "x").await?;
    }
    let refused = store.commit(write("/x", "1")).await;
    ensure!(
        matches!(refused, Err(Error::WentBack { .. })),
        "{refused:?}"
    );
    ensure!(
        view.freshness(SystemClock.boot_now()).is_none(),
        "fresh on a store that went back"
    );
    ensure!(matches!(&*role.borrow(), Role::Held { .. }));

    let raised = raise_incarnation(&other, &SystemClock, 0, "restored").await?;
    let token = leads(&mut role).await?;
    ensure!(token.incarnation == raised);
    fresh(&view).await?;
    ensure!(view.get(&keys::job_header("old")).is_some());
    ensure!(
        view.get(&keys::job_header("lost")).is_none(),
        "shows what was lost"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_on_a_frozen_etcd_stops_before_its_lease_can_end() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let store: Arc<dyn Store> = Arc::new(server.store().await?);
    let replica = start(&store, "one");
    let mut role = replica.role();
    let token = leads(&mut role).await?;
    server.freeze()?;
    let frozen = SystemClock.boot_now();
    let lost = role.wait_for(|role| matches!(role, Role::Lost { .. }));
    tokio::time::timeout(PATIENCE, lost)
        .await
        .context("leads on")??;
    let took = SystemClock.boot_now() - frozen;
    ensure!(took < Duration::from_millis(2500) + SLACK, "{took:?}");
    ensure!(!token.is_live(&SystemClock));
    server.thaw()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_behind_mutual_tls_serves_us_and_no_stranger() -> anyhow::Result<()> {
    let certificates = certificates()?;
    let server = Server::start_tls(certificates.clone()).await?;
    let store = server.store().await?;
    put(&store, "/a", "1").await?;

    let stranger = self::certificates()?;
    let mut config = server.config();
    if let Some(tls) = &mut config.tls {
        tls.certificate = stranger.client.0.into();
        tls.key = stranger.client.1.into();
    }
    let refused = Etcd::connect(&config).await?.get(&Key::raw("/a")).await;
    ensure!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
    let plain = Config {
        endpoints: vec![server.endpoint().replace("https", "http")],
        tls: None,
    };
    let refused = Etcd::connect(&plain).await?.get(&Key::raw("/a")).await;
    ensure!(
        matches!(refused, Err(Error::Unavailable { .. })),
        "{refused:?}"
    );
    Ok(())
}

fn certificates() -> anyhow::Result<Certificates> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let leaf = |usages: Vec<ExtendedKeyUsagePurpose>| {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        params.extended_key_usages = usages;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        anyhow::Ok((certificate.pem(), key.serialize_pem()))
    };
    Ok(Certificates {
        server: leaf(vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ])?,
        client: leaf(vec![ExtendedKeyUsagePurpose::ClientAuth])?,
        ca: ca.pem(),
    })
}
