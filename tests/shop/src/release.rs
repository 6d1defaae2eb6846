//! What a release does, told from the tag of its image. The words may stand anywhere in a tag, with or without a
//! measure.
//!
//! | in a tag | the release | without a measure |
//! |---|---|---|
//! | `slow-300ms` | takes that much longer for each request | `1s` |
//! | `failing-30pct` | answers 500 to that share of requests, in turn | all |
//! | `unready` | fails its probes: never ready, and `/healthz` says 500 | |
//! | `flapping-2s` | is ready for so long, then as `unready` for so long, and so on | `5s` |
//! | `crash` | ends as soon as it has started | |
//! | `crash-after-30s` | serves that long, then ends | |
//! | `leaking-8mib` | keeps that much more memory every second | `8mib` |
//! | `broken`, `does-not-exist` | cannot be pulled: nobody makes that image | |
//! | `only-in-REGION-CLUSTER` | cannot be pulled in any other cluster | |
//!
//! Two words may stand together; of two crashes the one at the start is the one that is seen, and what is never ready
//! does not flap.

use std::fmt;
use std::time::Duration;

const SLOW: Duration = Duration::from_secs(1);
const LEAK: u64 = 8;

/// Longer than a kubelet needs to see either half, with a probe each second of which two must fail.
const FLAP: Duration = Duration::from_secs(5);

/// A release of the shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    tag: String,
    behaviour: Behaviour,
    pull: Pull,
}

/// What a container of a release does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// How much longer it takes for each request.
    pub delay: Duration,
    /// The share of requests that it fails.
    pub failing: Share,
    /// Whether its probes succeed.
    pub probes: Probes,
    /// When it ends by itself.
    pub crash: Crash,
    /// MiB it keeps every second and never uses. 0 where it does not leak.
    pub leak: u64,
}

/// Hundredths of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u8);

/// What probes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probes {
    /// How it is.
    Honest,
    /// That it is ready and that it is not in turn, each for so long. Ready first.
    Flapping(Duration),
    /// That it is not ready, for ever.
    Failing,
}

/// When a container ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Never.
    Never,
    /// Before it serves.
    AtStart,
    /// After it has served for a while.
    After(Duration),
}

/// Where the image of a release is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Everywhere.
    Everywhere,
    /// Nowhere.
    Nowhere,
    /// In this cluster only, by `REGION-CLUSTER`.
    OnlyIn(String),
}

impl Release {
    /// The release of a tag.
    pub fn of_tag(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            behaviour: Behaviour::of_tag(tag),
            pull: Pull::of_tag(tag),
        }
    }

    /// The release of an image. Only the tag counts: a port of a registry is none.
    pub fn of_image(image: &str) -> Self {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        Self::of_tag(tag.filter(|tag| !tag.contains('/')).unwrap_or("latest"))
    }

    /// The release of a version that behaves so: its tag says both.
    pub fn named(version: &str, behaviour: &Behaviour) -> Self {
        let words = behaviour.to_string();
        let parts = [version, &words].map(str::to_owned);
        Self::of_tag(
            &parts
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect::<Vec<_>>()
                .join("-"),
        )
    }

    /// Its tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// What a container of it does.
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Whether its image is to be had in a cluster, named `REGION-CLUSTER`.
    pub fn can_be_pulled_in(&self, cluster: &str) -> bool {
        match &self.pull {
            Pull::Everywhere => true,
            Pull::Nowhere => false,
            Pull::OnlyIn(only) => only == cluster,
        }
    }

    /// The arguments with which this program is that release.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--release".to_owned(), self.tag.clone()];
        arguments.extend(self.behaviour.arguments());
        arguments
    }
}

impl Behaviour {
    /// That of a good release.
    pub const GOOD: Self = Self {
        delay: Duration::ZERO,
        failing: Share::NONE,
        probes: Probes::Honest,
        crash: Crash::Never,
        leak: 0,
    };

    fn of_tag(tag: &str) -> Self {
        let crash = match measure(tag, "crash-after", &SECONDS_AND_LESS) {
            Some(Some(millis)) => Crash::After(Duration::from_millis(millis)),
            _ if tag.contains("crash") => Crash::AtStart,
            _ => Crash::Never,
        };
        let delay = measure(tag, "slow", &SECONDS_AND_LESS)
            .map(|given| given.map_or(SLOW, Duration::from_millis));
        let failing =
            measure(tag, "failing", &[("pct", 1)]).map(|given| given.map_or(Share::ALL, Share::of));
        let leak = measure(tag, "leaking", &[("mib", 1)]).map(|given| given.unwrap_or(LEAK));
        Self {
            delay: delay.unwrap_or(Duration::ZERO),
            failing: failing.unwrap_or(Share::NONE),
            probes: Probes::of_tag(tag),
            crash,
            leak: leak.unwrap_or(0),
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut add = |flag: &str, value: Option<String>| {
            all.push(flag.to_owned());
            all.extend(value);
        };
        if !self.delay.is_zero() {
            add("--delay", Some(in_units(self.delay)));
        }
        if self.failing != Share::NONE {
            add("--fail-percent", Some(self.failing.0.to_string()));
        }
        match self.probes {
            Probes::Honest => {}
            Probes::Flapping(time) => add("--flap", Some(in_units(time))),
            Probes::Failing => add("--never-ready", None),
        }
        match self.crash {
            Crash::Never => {}
            Crash::AtStart => add("--crash-at-start", None),
            Crash::After(time) => add("--crash-after", Some(in_units(time))),
        }
        if self.leak > 0 {
            add("--leak-mib", Some(self.leak.to_string()));
        }
        all
    }

    /// Whether a request fails, counted from 0 among those of customers (see [`is_of_customers`]), to a container
    /// that has been `up` for so long.
    pub fn fails(&self, path: &str, number: u64, up: Duration) -> bool {
        let unwell = self.probes.fail_after(up);
        match path {
            "/readyz" => unwell,
            "/healthz" if unwell => true,
            _ => is_of_customers(path) && self.failing.takes(number),
        }
    }

    /// What a container says in its log once it has started.
    pub fn first_words(&self) -> &'static str {
        if self.crash == Crash::AtStart {
            "panic: open /etc/app/config.json: no such file"
        } else if self.failing != Share::NONE {
            "error: database refused the connection"
        } else if !self.delay.is_zero() {
            "warning: waiting for a lock"
        } else {
            "listening"
        }
    }
}

/// The words of a behaviour, as they stand in a tag. Empty for a good release.
impl fmt::Display for Behaviour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if !self.delay.is_zero() {
            words.push(format!("slow-{}", in_units(self.delay)));
        }
        if self.failing != Share::NONE {
            words.push(format!("failing-{}pct", self.failing.0));
        }
        match self.probes {
            Probes::Honest => {}
            Probes::Flapping(time) => words.push(format!("flapping-{}", in_units(time))),
            Probes::Failing => words.push("unready".to_owned()),
        }
        match self.crash {
            Crash::Never => {}
            Crash::AtStart => words.push("crash".to_owned()),
            Crash::After(time) => words.push(format!("crash-after-{}", in_units(time))),
        }
        if self.leak > 0 {
            words.push(format!("leaking-{}mib", self.leak));
        }
        formatter.write_str(&words.join("-"))
    }
}

impl Probes {
    fn of_tag(tag: &str) -> Self {
        match measure(tag, "flapping", &SECONDS_AND_LESS) {
            _ if tag.contains("unready") => Self::Failing,
            Some(given) => Self::Flapping(given.map_or(FLAP, Duration::from_millis)),
            None => Self::Honest,
        }
    }

    /// Whether they fail in a container that has been up for so long.
    pub fn fail_after(self, up: Duration) -> bool {
        match self {
            Self::Honest => false,
            Self::Flapping(time) => up.as_nanos() / time.as_nanos().max(1) % 2 == 1,
            Self::Failing => true,
        }
    }
}

impl Share {
    /// No request.
    pub const NONE: Self = Self(0);
    /// Every request.
    pub const ALL: Self = Self(100);

    /// So many hundredths, at most all.
    pub fn of(hundredths: u64) -> Self {
        Self(u8::try_from(hundredths.min(100)).expect("at most 100"))
    }

    /// Whether the request of this number, counted from 0, is one of the share. Spread evenly, and the same for
    /// the same number: of any hundred in a row exactly the share.
    pub fn takes(self, number: u64) -> bool {
        let (place, share) = (number % 100, u64::from(self.0));
        (place + 1) * share / 100 > place * share / 100
    }
}

impl Pull {
    fn of_tag(tag: &str) -> Self {
        if tag.contains("broken") || tag.contains("does-not-exist") {
            return Self::Nowhere;
        }
        match tag.split_once("only-in-") {
            Some((_, cluster)) => Self::OnlyIn(cluster.to_owned()),
            None => Self::Everywhere,
        }
    }
}

/// Whether a customer asks for a path, and not what keeps watch over a pod.
pub fn is_of_customers(path: &str) -> bool {
    !matches!(path, "/livez" | "/readyz" | "/metrics")
}

const SECONDS_AND_LESS: [(&str, u64); 2] = [("ms", 1), ("s", 1000)];

/// The measure behind a word of a tag, such as `slow-300ms`. `Some(None)` for the word alone.
fn measure(tag: &str, word: &str, units: &[(&str, u64)]) -> Option<Option<u64>> {
    let (_, after) = tag.split_once(word)?;
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit());
    let number = || {
        let rest = after.strip_prefix('-')?;
        let (number, rest) = rest.split_at(digits(rest)?);
        let (_, factor) = units.iter().find(|(unit, _)| is_unit(rest, unit))?;
        number.parse::<u64>().ok()?.checked_mul(*factor)
    };
    Some(number())
}

/// Whether a text begins with a unit, and not with a longer word.
fn is_unit(text: &str, unit: &str) -> bool {
    let rest = text.strip_prefix(unit);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

fn in_units(time: Duration) -> String {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) {
        format!("{}s", millis / 1000)
    } else {
        format!("{millis}ms")
    }
}

/// A duration as it stands in tags and arguments, `300ms` or `2s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seen = measure(&format!("for-{text}"), "for", &SECONDS_AND_LESS).flatten();
    let millis = seen.ok_or_else(|| format!("`{text}` is no time such as `300ms` or `2s`"))?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests;
