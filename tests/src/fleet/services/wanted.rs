//! Which services a fleet is given: a list as a person types it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// One service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Databases.
    Postgres,
    /// The object store.
    S3,
    /// The cache.
    Redis,
    /// Metrics of the shop.
    Prometheus,
    /// Metrics of nodes and pods, in each cluster.
    Metrics,
    /// The fixture in GitHub's place.
    Github,
    /// The fixture in Sentry's place.
    Sentry,
}

/// A choice of services, all by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(BTreeSet<Service>);

/// A word that names no service.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "there is no service `{name}`\n\nhint: name some of {}, or `all`, or `none`, with commas between",
    names(&Service::ALL)
)]
pub struct UnknownService {
    name: String,
}

impl Service {
    /// Every one, in the order in which they are named.
    pub const ALL: [Self; 7] = [
        Self::Postgres,
        Self::S3,
        Self::Redis,
        Self::Prometheus,
        Self::Metrics,
        Self::Github,
        Self::Sentry,
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::S3 => "s3",
            Self::Redis => "redis",
            Self::Prometheus => "prometheus",
            Self::Metrics => "metrics",
            Self::Github => "github",
            Self::Sentry => "sentry",
        }
    }
}

impl Wanted {
    /// None of them.
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Whether one is wanted.
    pub fn contains(&self, service: Service) -> bool {
        self.0.contains(&service)
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self(Service::ALL.into())
    }
}

impl FromIterator<Service> for Wanted {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

impl FromStr for Wanted {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        match text.trim() {
            "all" => Ok(Self::default()),
            "none" | "" => Ok(Self::none()),
            list => list.split(',').map(|word| word.trim().parse()).collect(),
        }
    }
}

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, UnknownService> {
        let mut all = Self::ALL.into_iter();
        all.find(|service| service.name() == name)
            .ok_or_else(|| UnknownService {
                name: name.to_owned(),
            })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let chosen: Vec<&str> = self.0.iter().map(|service| service.name()).collect();
        f.write_str(&chosen.join(","))
    }
}

fn names(services: &[Service]) -> String {
    let quoted: Vec<String> = services.iter().map(|one| format!("`{one}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_chooses_and_reads_back() {
        let wanted: Wanted = "redis, postgres".parse().unwrap();
        assert!(wanted.contains(Service::Redis) && wanted.contains(Service::Postgres));
        assert!(!wanted.contains(Service::S3));
        for wanted in [wanted, Wanted::default(), Wanted::none()] {
            assert_eq!(wanted.to_string().parse(), Ok(wanted));
        }
    }

    #[test]
    fn all_and_none_are_words() {
        assert_eq!("all".parse(), Ok(Wanted::default()));
        assert_eq!("none".parse(), Ok(Wanted::none()));
    }

    #[test]
    fn an_unknown_word_is_named_beside_those_that_are_known() {
        let error = "postgres,reddis".parse::<Wanted>().unwrap_err().to_string();
        assert!(error.contains("`reddis`"), "{error}");
        assert!(error.contains("`redis`, `prometheus`"), "{error}");
    }
}
