//! Those who call the shop while it is changed, and what became of their requests: in numbers, by region and by
//! release. Only where nodes are real: a simulated pod has no address that anyone could call.

use std::fmt::Write;
use std::future::Future;
use std::time::Duration;

use aldis_tests::fleet::application::Application;
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::nodes::Nodes;
use aldis_tests::fleet::{ready, shop};
use aldis_tests::load::report::Report;
use aldis_tests::load::{self, Load};
use anyhow::ensure;
use jiff::Timestamp;

/// Enough to see a failure at once, and little beside four clusters on two cores.
pub(crate) const PER_SECOND: u32 = 10;

/// For one request. A machine that is busy for some seconds is not taken for a shop that fails.
const LIMIT: Duration = Duration::from_secs(10);

/// Requests to each cluster that say how it is when nothing changes: five seconds' worth.
const ENOUGH: u64 = 50;

/// Far more than those take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that keep coming, to every cluster.
pub(crate) struct Callers {
    load: Load,
}

/// How they were served around a change.
pub(crate) struct Seen {
    begun: Timestamp,
    before: Report,
    during: Report,
    after: Report,
    all: Report,
}

/// Waits until the shop of a cluster has served a request; how it is said. Nobody can call a simulated one.
pub(crate) async fn first_served(
    cluster: &Cluster,
    application: &Application,
) -> anyhow::Result<String> {
    let name = cluster.target();
    let image = application.releases.last().map_or("", String::as_str);
    if cluster.nodes() == Nodes::Simulated {
        return Ok(format!("the shop is up in {name}: {image}"));
    }
    let callers = Callers::start(std::slice::from_ref(cluster), application);
    let served = || async {
        let report = callers.load.report();
        ensure!(
            report.total().served() > 0,
            "no request was served:\n{report}"
        );
        Ok(())
    };
    ready::eventually(PATIENCE, format!("the shop serves in {name}"), served).await?;
    Ok(format!("the shop serves in {name}: {image}"))
}

impl Callers {
    /// They begin to call.
    pub(crate) fn start(clusters: &[Cluster], application: &Application) -> Self {
        let options = load::Options {
            per_second: PER_SECOND,
            limit: LIMIT,
            ..load::Options::default()
        };
        Self {
            load: Load::start(options, shop::sources(clusters, application)),
        }
    }

    /// Waits until every cluster was called some times more.
    async fn call(&self) -> anyhow::Result<()> {
        let before = self.load.report();
        let called = || async {
            for (cluster, counts) in &self.load.report().since(&before).clusters {
                let ended = counts.served() + counts.failed();
                ensure!(
                    ended >= ENOUGH,
                    "{cluster}: {ended} of {ENOUGH} requests have ended"
                );
            }
            Ok(())
        };
        ready::eventually(PATIENCE, "requests to the shop", called).await
    }
}

impl Callers {
    /// Makes a change, and reads how callers are served before, during and after it.
    pub(crate) async fn see(
        &self,
        change: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Seen> {
        let first = self.load.report();
        self.call().await?;
        let (begun, report) = (Timestamp::now(), self.load.report());
        change.await?;
        let ended = self.load.report();
        self.call().await?;
        let last = self.load.report();
        Ok(Seen {
            begun,
            before: report.since(&first),
            during: ended.since(&report),
            after: last.since(&ended),
            all: last.since(&first),
        })
    }
}

impl Seen {
    /// The change ended failures. Prints how, and fails where it is not so.
    pub(crate) fn tell_of_a_cure(&self) -> anyhow::Result<()> {
        self.tell();
        println!(
            "\nThe last request that failed:\n\n{}",
            self.last_failures()
        );
        ensure_none_served(&self.before)?;
        ensure_all_served(&self.after)?;
        println!("Since then none failed.");
        Ok(())
    }

    /// The change did no harm, though a release of its own was seen. Prints it, and fails where it is not so.
    pub(crate) fn tell_of_no_harm(&self, release: &str) -> anyhow::Result<()> {
        self.tell();
        ensure_all_served(&self.all)?;
        let served = self.all.total().releases.get(release).map(|one| one.served);
        ensure!(
            served.is_some_and(|count| count > 0),
            "{release} served nobody, so that nothing was put to the test:\n{}",
            self.all
        );
        println!("\nNo request failed, on the way there and on the way back.");
        Ok(())
    }

    fn tell(&self) {
        println!(
            "\nProof, by those who called the shop meanwhile, {PER_SECOND} times a second in each cluster:\n"
        );
        let stretches = [
            ("before", &self.before),
            ("through the change", &self.during),
            ("after", &self.after),
        ];
        print!("{}", by_region(&stretches));
        println!("\nBy the release that answered, from first to last:\n");
        print!("{}", by_release(&self.all));
    }

    fn last_failures(&self) -> String {
        let mut text = String::new();
        for (region, counts) in &self.during.by_region().clusters {
            let Some(last) = counts.failures.iter().map(|failure| failure.at).max() else {
                continue;
            };
            let after = last.duration_since(self.begun).as_secs_f64();
            let time = last.strftime("%H:%M:%S");
            let _ = writeln!(
                text,
                "  {region:<10} at {time} UTC, {after:.0} s into the change"
            );
        }
        text
    }
}

/// Rows of regions; a pair of columns, served and failed, for each stretch of time.
fn by_region(stretches: &[(&str, &Report)]) -> String {
    let mut head = format!("  {:<10}", "");
    let mut below = format!("  {:<10}", "");
    for (name, _) in stretches {
        let _ = write!(head, "  {name:>18}");
        let _ = write!(below, "  {:>9}{:>9}", "served", "failed");
    }
    let mut text = format!("{head}\n{below}\n");
    let regions: Vec<Report> = stretches.iter().map(|(_, all)| all.by_region()).collect();
    for region in regions.iter().take(1).flat_map(|one| one.clusters.keys()) {
        let _ = write!(text, "  {region:<10}");
        for counts in regions.iter().map(|report| report.clusters.get(region)) {
            let (served, failed) = counts.map_or((0, 0), |one| (one.served(), one.failed()));
            let _ = write!(text, "  {served:>9}{failed:>9}");
        }
        text.push('\n');
    }
    text
}

/// A line for each release that answered, and one for requests that nobody answered.
fn by_release(report: &Report) -> String {
    let releases = report.total().releases;
    let width = releases.keys().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for (release, tally) in &releases {
        let causes: Vec<String> = tally
            .failed
            .iter()
            .map(|(cause, count)| format!("{count} {cause}"))
            .collect();
        let causes = match causes.as_slice() {
            [] => String::new(),
            some => format!(" ({})", some.join(", ")),
        };
        let _ = writeln!(
            text,
            "  {release:<width$}  {:>6} served {:>6} failed{causes}",
            tally.served,
            tally.failures(),
        );
    }
    text
}

fn ensure_all_served(report: &Report) -> anyhow::Result<()> {
    for (cluster, counts) in &report.clusters {
        ensure!(
            counts.served() > 0 && counts.failed() == 0 && counts.held_back == 0,
            "{cluster}: every request should have been served:\n{report}"
        );
    }
    Ok(())
}

fn ensure_none_served(report: &Report) -> anyhow::Result<()> {
    for (cluster, counts) in &report.clusters {
        ensure!(
            counts.served() == 0 && counts.failed() > 0,
            "{cluster}: every request should have failed before the change:\n{report}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aldis_tests::load::count::{Cause, Counts, Tally};

    use super::*;

    fn counts(release: &str, served: u64, failed: u64) -> Counts {
        let mut tally = Tally {
            served,
            ..Tally::default()
        };
        if failed > 0 {
            tally.failed.insert(Cause::Status(500), failed);
        }
        Counts {
            sent: served + failed,
            releases: [(release.to_owned(), tally)].into(),
            ..Counts::default()
        }
    }

    fn report(of: &[(&str, Counts)]) -> Report {
        let clusters = of
            .iter()
            .map(|(name, counts)| ((*name).to_owned(), counts.clone()));
        Report {
            clusters: clusters.collect(),
        }
    }

    fn ill() -> Report {
        report(&[
            ("eu-west/a", counts("v2-failing", 0, 51)),
            ("eu-west/b", counts("v2-failing", 0, 50)),
            ("us-east/a", counts("v2-failing", 0, 50)),
        ])
    }

    fn well() -> Report {
        report(&[
            ("eu-west/a", counts("v1", 1200, 0)),
            ("us-east/a", counts("v1", 700, 0)),
        ])
    }

    #[test]
    fn a_row_is_a_region_and_a_pair_of_columns_a_stretch_of_time() {
        let shown = by_region(&[("before", &ill()), ("after", &well())]);
        let wanted = [
            "                          before               after",
            "                 served   failed     served   failed",
            "  eu-west             0      101       1200        0",
            "  us-east             0       50        700        0",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_release_that_failed_says_how() {
        assert_eq!(
            by_release(&ill()),
            "  v2-failing       0 served    151 failed (151 status 500)\n"
        );
    }

    #[test]
    fn one_cluster_that_is_not_well_is_named() {
        let error = ensure_all_served(&ill()).unwrap_err().to_string();
        assert!(error.starts_with("eu-west/a: "), "{error}");
        assert!(ensure_all_served(&well()).is_ok());
    }

    #[test]
    fn requests_that_were_never_sent_prove_nothing() {
        let mut idle = counts("v1", 10, 0);
        idle.held_back = 1;
        assert!(ensure_all_served(&report(&[("eu-west/a", idle)])).is_err());
        let unasked = report(&[("eu-west/a", Counts::default())]);
        assert!(ensure_all_served(&unasked).is_err());
        assert!(ensure_none_served(&unasked).is_err());
    }
}
