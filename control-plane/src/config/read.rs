//! Takes a configuration apart key by key, and goes on after each mistake.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_core::runbook::duration;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Config, LISTED_FOR, Limits, Log, Monitoring, RETENTION, Store};
use crate::telemetry::{self, chain};
use crate::tls::Files;

/// A whole configuration, or every mistake of it.
pub(super) fn config(fields: Map<String, Value>, folder: &Path) -> Result<Config, Vec<String>> {
    let mut fields = Fields::new(String::new(), fields);
    let replica = fields.text("replica");
    let listen = fields.needed::<SocketAddr>("listen");
    let advertise = fields.text("advertise");
    if advertise
        .as_ref()
        .is_some_and(|address| !address.contains(':'))
    {
        fields.mistake("advertise", "must be HOST:PORT");
    }
    let trust_domain = fields.text("trustDomain");
    let tls = fields
        .part("tls")
        .and_then(|part| files(&mut fields, part, folder));
    if let Some(error) = tls.as_ref().and_then(|files| files.server().err()) {
        fields.mistake("tls", &chain(&error));
    }
    let store = fields
        .part("store")
        .and_then(|part| store(&mut fields, part, folder));
    let limits = limits(&mut fields);
    let monitoring = monitoring(&mut fields);
    let log = log(&mut fields);
    let mistakes = fields.rest();
    match (replica, listen, advertise, trust_domain, tls, store) {
        (
            Some(replica),
            Some(listen),
            Some(advertise),
            Some(trust_domain),
            Some(tls),
            Some(store),
        ) if mistakes.is_empty() => Ok(Config {
            replica,
            listen,
            advertise,
            trust_domain,
            tls,
            store,
            limits,
            monitoring,
            log,
        }),
        _ => Err(mistakes),
    }
}

fn files(whole: &mut Fields, mut part: Fields, folder: &Path) -> Option<Files> {
    let certificate = part.needed::<PathBuf>("certificate");
    let key = part.needed::<PathBuf>("key");
    let ca = part.needed::<PathBuf>("ca");
    whole.take_in(part);
    let files = Files {
        certificate: certificate?,
        key: key?,
        ca: ca?,
    };
    Some(files.below(folder))
}

fn store(whole: &mut Fields, mut part: Fields, folder: &Path) -> Option<Store> {
    let found = match (part.has("etcd"), part.has("embedded")) {
        (true, false) => part
            .part("etcd")
            .and_then(|etcd| self::etcd(&mut part, etcd, folder)),
        (false, true) => part.part("embedded").and_then(|mut embedded| {
            let path = embedded.needed::<PathBuf>("path");
            part.take_in(embedded);
            Some(Store::Embedded {
                path: folder.join(path?),
            })
        }),
        (true, true) | (false, false) => {
            whole.mistake("store", "must have one of `etcd` and `embedded`");
            None
        }
    };
    whole.take_in(part);
    found
}

fn etcd(store: &mut Fields, mut part: Fields, folder: &Path) -> Option<Store> {
    let endpoints = part.needed::<Vec<String>>("endpoints").unwrap_or_default();
    let named = !endpoints.is_empty();
    part.check("endpoints", named, "must name at least one");
    let tls = match part.has("tls") {
        true => part
            .part("tls")
            .and_then(|tls| files(&mut part, tls, folder)),
        false => None,
    };
    let plain = |endpoint: &String| {
        endpoint.starts_with("http://127.0.0.1:") || endpoint.starts_with("http://localhost:")
    };
    if let Some(error) = tls.as_ref().and_then(|files| files.client().err()) {
        part.mistake("tls", &chain(&error));
    } else if tls.is_none() && !endpoints.iter().all(plain) {
        part.mistake("tls", "is needed for etcd beyond loopback");
    }
    store.take_in(part);
    named.then_some(Store::Etcd { endpoints, tls })
}

fn limits(whole: &mut Fields) -> Limits {
    let usual = Limits::default();
    if !whole.has("limits") {
        return usual;
    }
    let Some(mut part) = whole.part("limits") else {
        return usual;
    };
    let limits = Limits {
        permit: part.duration("permit", usual.permit),
        unreachable_after: part.duration("unreachableAfter", usual.unreachable_after),
        defer_for: part.duration("deferFor", usual.defer_for),
        leader_ttl: part.duration("leaderTtl", usual.leader_ttl),
        running_jobs: part.optional("runningJobs").unwrap_or(usual.running_jobs),
        open_jobs: part.optional("openJobs").unwrap_or(usual.open_jobs),
        retention: part.duration("retention", usual.retention),
        unsafe_retention: part.optional("unsafeRetention").unwrap_or(false),
        plan_expiry: part.duration("planExpiry", usual.plan_expiry),
    };
    let fresh_view = "must be at least 3s: a fresh view alone takes two";
    part.check(
        "permit",
        limits.permit >= Duration::from_secs(3),
        fresh_view,
    );
    let ttl = limits.leader_ttl >= Duration::from_secs(2);
    part.check("leaderTtl", ttl, "must be at least 2s");
    part.check("runningJobs", limits.running_jobs > 0, "must be at least 1");
    let kept = limits.retention >= RETENTION || limits.unsafe_retention;
    let why = format!(
        "must be at least {}: agents list their attempts for {}, and what was swept sooner looks like a store that lost it",
        duration::format(RETENTION),
        duration::format(LISTED_FOR)
    );
    part.check("retention", kept, &why);
    whole.take_in(part);
    limits
}

fn monitoring(whole: &mut Fields) -> Option<Monitoring> {
    if !whole.has("monitoring") {
        return None;
    }
    let mut part = whole.part("monitoring")?;
    let listen = part.needed::<SocketAddr>("listen");
    let any_address = part.optional("anyAddress").unwrap_or(false);
    let safe = listen.is_none_or(|listen| listen.ip().is_loopback() || any_address);
    let meant = "is not loopback; set `monitoring.anyAddress: true` if that is meant";
    part.check("listen", safe, meant);
    whole.take_in(part);
    Some(Monitoring {
        listen: listen?,
        any_address,
    })
}

fn log(whole: &mut Fields) -> Log {
    if !whole.has("log") {
        return Log::default();
    }
    let Some(mut part) = whole.part("log") else {
        return Log::default();
    };
    let log = Log {
        format: part.optional("format").unwrap_or_default(),
        level: part.optional("level"),
    };
    if let Err(error) = telemetry::filter(&log) {
        part.mistake("level", &error.to_string());
    }
    whole.take_in(part);
    log
}

/// Keys of one mapping that nobody has taken yet, and what was wrong with those that were.
struct Fields {
    /// What stands before a key in a message.
    prefix: String,
    left: Map<String, Value>,
    mistakes: Vec<String>,
}

impl Fields {
    fn new(prefix: String, left: Map<String, Value>) -> Self {
        Self {
            prefix,
            left,
            mistakes: Vec::new(),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// A mapping inside this one.
    fn part(&mut self, key: &str) -> Option<Fields> {
        let fields = self.needed::<Map<String, Value>>(key)?;
        Some(Fields::new(format!("{}{key}.", self.prefix), fields))
    }

    /// What is wrong with a part, and with what nobody took of it.
    fn take_in(&mut self, part: Fields) {
        self.mistakes.extend(part.rest());
    }

    fn needed<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.has(key) {
            self.mistake(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        match serde_json::from_value(self.left.remove(key)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(key, &error.to_string());
                None
            }
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let text = self.needed::<String>(key)?;
        self.check(key, !text.is_empty(), "must not be empty");
        Some(text)
    }

    fn duration(&mut self, key: &str, usual: Duration) -> Duration {
        let Some(text) = self.optional::<String>(key) else {
            return usual;
        };
        duration::parse(&text).unwrap_or_else(|problem| {
            self.mistake(key, &problem);
            usual
        })
    }

    fn check(&mut self, key: &str, held: bool, otherwise: &str) {
        if !held {
            self.mistake(key, otherwise);
        }
    }

    fn mistake(&mut self, key: &str, why: &str) {
        self.mistakes.push(format!("{}{key}: {why}", self.prefix));
    }

    /// Every mistake, with the keys that mean nothing.
    fn rest(mut self) -> Vec<String> {
        for key in std::mem::take(&mut self.left).keys() {
            self.mistake(key, "is no key of a control plane's configuration");
        }
        self.mistakes
    }
}
