//! Keeps requests coming to every cluster, and counts what becomes of them: that "no request failed during the
//! change" is a number.
//!
//! ```text
//! EndpointSlices ─▶ addresses ─┐
//!             so many a second ┴▶ request to the next address ─▶ served | failed by cause ─▶ Report
//! ```
//!
//! Requests keep their pace whatever becomes of them: a generator that waited for a slow server would not see it
//! fail. They go to addresses of pods in turn, where kube-proxy would send them at random. One `tokio` task carries
//! all of them; it ends when [`Load`] is dropped.

pub mod count;
mod exchange;
pub mod latency;
pub mod report;
pub mod source;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::count::{Counts, Outcome};
use self::report::Report;
use self::source::{Followed, Source};

/// What is sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests a second, to each cluster.
    pub per_second: u32,
    /// Requests under way at once, to each cluster. What is due beyond is held back, and counted.
    pub under_way: usize,
    /// For one request.
    pub limit: Duration,
    /// What is asked for.
    pub path: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            per_second: 20,
            // Two seconds' worth of requests that are never answered, at four times the usual pace.
            under_way: 160,
            limit: Duration::from_secs(2),
            path: "/".to_owned(),
        }
    }
}

/// Requests that keep coming. They end when this is dropped.
pub struct Load {
    counted: Counted,
    ending: CancellationToken,
    carries: AbortOnDropHandle<()>,
}

/// By cluster. Written by the generator alone.
type Counted = Arc<Mutex<BTreeMap<String, Counts>>>;

impl Load {
    /// Starts requests to clusters by `region/cluster`, on the runtime that this is called in.
    pub fn start(options: Options, clusters: impl IntoIterator<Item = (String, Source)>) -> Self {
        let lines: Vec<Line> = clusters
            .into_iter()
            .map(|(cluster, source)| Line {
                cluster,
                source: source.follow(),
                turn: 0,
            })
            .collect();
        let names = lines
            .iter()
            .map(|line| (line.cluster.clone(), Counts::default()));
        let counted: Counted = Arc::new(Mutex::new(names.collect()));
        let ending = CancellationToken::new();
        let generator = Generator {
            options: Arc::new(options),
            lines,
            under_way: FuturesUnordered::new(),
            counted: Arc::clone(&counted),
        };
        let carries = tokio::spawn(generator.run(ending.clone()));
        Self {
            counted,
            ending,
            carries: AbortOnDropHandle::new(carries),
        }
    }

    /// What is known at this moment.
    pub fn report(&self) -> Report {
        Report {
            clusters: lock(&self.counted).clone(),
        }
    }

    /// Sends no more, waits for what is under way, and says what became of all.
    pub async fn stop(self) -> anyhow::Result<Report> {
        self.ending.cancel();
        self.carries.await.context("end the load")?;
        let clusters = lock(&self.counted).clone();
        Ok(Report { clusters })
    }
}

/// One cluster's part.
struct Line {
    cluster: String,
    source: Followed,
    /// Which address is next.
    turn: usize,
}

struct Generator {
    options: Arc<Options>,
    lines: Vec<Line>,
    /// Each with the line it is of.
    under_way: FuturesUnordered<BoxFuture<'static, (usize, Outcome)>>,
    counted: Counted,
}

impl Generator {
    async fn run(mut self, ending: CancellationToken) {
        let mut due =
            tokio::time::interval(Duration::from_secs(1) / self.options.per_second.max(1));
        // A machine that stood still for a moment sends what it missed: the pace is kept over any time.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while !ending.is_cancelled() {
            tokio::select! {
                _ = due.tick() => (0..self.lines.len()).for_each(|line| self.send(line)),
                Some((line, outcome)) = self.under_way.next() => self.note(line, outcome),
                () = ending.cancelled() => {}
            }
        }
        while let Some((line, outcome)) = self.under_way.next().await {
            self.note(line, outcome);
        }
    }

    fn send(&mut self, number: usize) {
        let line = &mut self.lines[number];
        let mut all = lock(&self.counted);
        let counts = all.entry(line.cluster.clone()).or_default();
        if counts.under_way >= self.options.under_way as u64 {
            counts.held_back += 1;
            return;
        }
        counts.begin();
        let addresses = line.source.addresses();
        let Some(address) = addresses.get(line.turn % addresses.len().max(1)) else {
            counts.end(exchange::nowhere());
            return;
        };
        line.turn = line.turn.wrapping_add(1);
        let (address, options) = (*address, Arc::clone(&self.options));
        self.under_way.push(Box::pin(async move {
            let outcome = exchange::exchange(address, &options.path, options.limit).await;
            (number, outcome)
        }));
    }

    fn note(&self, line: usize, outcome: Outcome) {
        let mut all = lock(&self.counted);
        if let Some(counts) = all.get_mut(&self.lines[line].cluster) {
            counts.end(outcome);
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;

    fn busy() -> Options {
        Options {
            per_second: 100,
            ..Options::default()
        }
    }

    #[tokio::test]
    async fn what_was_under_way_ends_with_a_load_that_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_sender, addresses) = watch::channel(vec![listener.local_addr().unwrap()]);
        let options = Options {
            limit: Duration::from_secs(3600),
            ..busy()
        };
        let load = Load::start(options, [("eu/one".to_owned(), Source::Given(addresses))]);
        let (mut under_way, _) = listener.accept().await.unwrap();
        let counted = Arc::downgrade(&load.counted);
        drop(load);
        let mut read = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(&mut under_way, &mut read).await;
        assert!(ended.is_ok(), "{ended:?}");
        assert!(counted.upgrade().is_none(), "somebody still counts");
    }

    #[tokio::test]
    async fn addresses_are_used_in_turn_and_each_cluster_has_its_own() {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let at = |numbers: &[usize]| {
            let addresses = numbers.iter().map(|n| servers[*n].local_addr().unwrap());
            Source::Given(watch::channel(addresses.collect()).1)
        };
        let clusters = [("eu/one", at(&[0, 1])), ("us/one", at(&[2]))];
        let named = clusters.map(|(name, source)| (name.to_owned(), source));
        let load = Load::start(busy(), named);
        for _ in 0..2 {
            for server in &servers {
                drop(server.accept().await.unwrap());
            }
        }
        let names: Vec<String> = load.report().clusters.into_keys().collect();
        assert_eq!(names, ["eu/one", "us/one"]);
    }
}
