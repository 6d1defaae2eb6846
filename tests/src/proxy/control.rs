//! Switches proxies over HTTP, for a shell or another process.
//!
//! ```text
//! curl $ALDIS_FLEET_PROXIES                                        # one line each: name, address, where to, fault
//! curl -X POST $ALDIS_FLEET_PROXIES/agent-eu-west-prod-1/cut       # pass, cut, black-hole, delay/500 (ms)
//! ```
//!
//! Several proxies may be named by their beginning and a `*`: `/agent-eu-west-prod-1*/cut`.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{Fault, Switch};

/// A running control server. Ends when dropped.
pub struct Control {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Control {
    /// Starts one for these proxies, on a port of its own.
    pub async fn start(switches: Vec<Switch>) -> anyhow::Result<Self> {
        let port = crate::fleet::ports::free()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address)
            .await
            .context("listen for the control of proxies")?;
        let task = tokio::spawn(serve(listener, switches.into()));
        Ok(Self {
            address,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Its address, as `http://…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(listener: TcpListener, switches: Arc<[Switch]>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let switches = Arc::clone(&switches);
        let service = service_fn(move |request: Request<Incoming>| {
            let (status, body) = answer(request.method(), request.uri().path(), &switches);
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        });
        connections.spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
        while connections.try_join_next().is_some() {}
    }
}

fn answer(method: &Method, path: &str, switches: &[Switch]) -> (StatusCode, String) {
    if method == Method::GET {
        return (StatusCode::OK, switches.iter().map(line).collect());
    }
    let Some((wanted, fault)) = path.trim_start_matches('/').split_once('/') else {
        return (StatusCode::BAD_REQUEST, "POST /NAME/FAULT\n".to_owned());
    };
    let fault = match fault.parse::<Fault>() {
        Ok(fault) => fault,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let meant: Vec<&Switch> = switches.iter().filter(|s| names(wanted, s)).collect();
    if meant.is_empty() {
        return (StatusCode::NOT_FOUND, format!("no proxy `{wanted}`\n"));
    }
    for switch in &meant {
        switch.set(fault);
    }
    (StatusCode::OK, meant.into_iter().map(line).collect())
}

fn names(wanted: &str, switch: &Switch) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => switch.name().starts_with(beginning),
        None => switch.name() == wanted,
    }
}

fn line(switch: &Switch) -> String {
    let (name, address, upstream) = (switch.name(), switch.address(), switch.upstream());
    format!("{name} {address} {upstream} {}\n", switch.fault())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Cut => f.write_str("cut"),
            Self::BlackHole => f.write_str("black-hole"),
            Self::Delay(late) => write!(f, "delay/{}", late.as_millis()),
        }
    }
}

/// A word that is no fault.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no fault: pass, cut, black-hole, or delay/MILLISECONDS")]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "pass" => Ok(Self::Pass),
            "cut" => Ok(Self::Cut),
            "black-hole" => Ok(Self::BlackHole),
            _ => text
                .strip_prefix("delay/")
                .and_then(|ms| ms.parse().ok())
                .map(|ms| Self::Delay(Duration::from_millis(ms)))
                .ok_or_else(|| UnknownFault(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Proxy;

    async fn proxies() -> Vec<Proxy> {
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        vec![
            Proxy::start("agent-a", upstream).await.unwrap(),
            Proxy::start("agent-b", upstream).await.unwrap(),
            Proxy::start("store-a", upstream).await.unwrap(),
        ]
    }

    fn faults(switches: &[Switch]) -> Vec<String> {
        switches.iter().map(|s| s.fault().to_string()).collect()
    }

    #[tokio::test]
    async fn one_or_several_are_switched_by_name() {
        let proxies = proxies().await;
        let switches: Vec<Switch> = proxies.iter().map(Proxy::switch).collect();
        let post = |path: &str| answer(&Method::POST, path, &switches).0;
        assert_eq!(post("/store-a/delay/250"), StatusCode::OK);
        assert_eq!(post("/agent-*/black-hole"), StatusCode::OK);
        assert_eq!(faults(&switches), ["black-hole", "black-hole", "delay/250"]);
        assert_eq!(post("/agent-a/pass"), StatusCode::OK);
        assert_eq!(faults(&switches), ["pass", "black-hole", "delay/250"]);
    }

    #[tokio::test]
    async fn a_typo_is_said_and_changes_nothing() {
        let proxies = proxies().await;
        let switches: Vec<Switch> = proxies.iter().map(Proxy::switch).collect();
        let post = |path: &str| answer(&Method::POST, path, &switches).0;
        assert_eq!(post("/agent-c/cut"), StatusCode::NOT_FOUND);
        assert_eq!(post("/agent-a/cutt"), StatusCode::BAD_REQUEST);
        assert_eq!(post("/agent-a"), StatusCode::BAD_REQUEST);
        assert_eq!(faults(&switches), ["pass", "pass", "pass"]);
    }
}
