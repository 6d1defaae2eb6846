//! Where requests are sent: to the addresses behind a Service, as kube-proxy on a node would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use futures::TryStreamExt;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Addresses, in order.
pub type Addresses = Vec<SocketAddr>;

/// Who says the addresses.
pub enum Source {
    /// Somebody who writes them: servers outside Kubernetes.
    Given(watch::Receiver<Addresses>),
    /// The EndpointSlices of a Service.
    Service {
        /// A client that may watch them.
        client: Client,
        /// The Service's namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Addresses that are kept up to date while this lives.
pub struct Followed {
    addresses: watch::Receiver<Addresses>,
    _follows: Option<AbortOnDropHandle<()>>,
}

impl Source {
    /// Begins to follow them, on the runtime that this is called in.
    pub fn follow(self) -> Followed {
        match self {
            Self::Given(addresses) => Followed {
                addresses,
                _follows: None,
            },
            Self::Service {
                client,
                namespace,
                name,
            } => {
                let (sender, addresses) = watch::channel(Addresses::new());
                let api = Api::<EndpointSlice>::namespaced(client, &namespace);
                let follows = tokio::spawn(follow(api, name, sender));
                Followed {
                    addresses,
                    _follows: Some(AbortOnDropHandle::new(follows)),
                }
            }
        }
    }
}

impl Followed {
    /// Those of this moment.
    pub fn addresses(&self) -> watch::Ref<'_, Addresses> {
        self.addresses.borrow()
    }
}

/// Follows for ever. While the API server is away the addresses stay, as they do in kube-proxy.
async fn follow(api: Api<EndpointSlice>, service: String, sender: watch::Sender<Addresses>) {
    let config =
        watcher::Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut slices = Slices::default();
    loop {
        match events.try_next().await {
            Ok(Some(event)) => {
                if slices.take(event) {
                    sender.send_replace(addresses(slices.known.values()));
                }
            }
            Ok(None) => return,
            Err(error) => tracing::debug!("follow the addresses of {service}: {error}"),
        }
    }
}

/// The slices of a Service, as the watch tells them.
#[derive(Default)]
struct Slices {
    known: BTreeMap<String, EndpointSlice>,
    listed: BTreeMap<String, EndpointSlice>,
}

impl Slices {
    /// Whether what is known may have changed. A list is taken when it is whole.
    fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(slice) => {
                self.listed.insert(slice.name_any(), slice);
            }
            Event::InitDone => self.known = std::mem::take(&mut self.listed),
            Event::Apply(slice) => {
                self.known.insert(slice.name_any(), slice);
            }
            Event::Delete(slice) => {
                self.known.remove(&slice.name_any());
            }
        }
        self.listed.is_empty()
    }
}

/// Those that are ready; where none is, those that still serve while they end.
fn addresses<'a>(slices: impl Iterator<Item = &'a EndpointSlice> + Clone) -> Addresses {
    let those = |which: fn(&Endpoint) -> bool| -> BTreeSet<SocketAddr> {
        slices
            .clone()
            .flat_map(|slice| of_slice(slice, which))
            .collect()
    };
    let mut found = those(is_ready);
    if found.is_empty() {
        found = those(serves_its_end);
    }
    found.into_iter().collect()
}

fn of_slice(slice: &EndpointSlice, which: fn(&Endpoint) -> bool) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten();
    // One of several is told by its name; applications of the fleet have one.
    let Some(port) = ports
        .filter_map(|port| u16::try_from(port.port?).ok())
        .next()
    else {
        return Vec::new();
    };
    // All addresses of an endpoint are one pod: the first stands for it.
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| which(endpoint))
        .filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

/// What is not said is taken for ready, as the API says.
fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|said| said.ready).unwrap_or(true)
}

fn serves_its_end(endpoint: &Endpoint) -> bool {
    let said = endpoint.conditions.as_ref();
    let both = said.map(|said| (said.serving, said.terminating));
    both == Some((Some(true), Some(true)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, endpoints: Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080}],
        }))
        .unwrap()
    }

    fn endpoint(address: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({"addresses": [address], "conditions": {
            "ready": ready, "serving": serving, "terminating": terminating,
        }})
    }

    fn found(slices: &[EndpointSlice]) -> Vec<String> {
        addresses(slices.iter())
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn only_ready_addresses_are_used_while_there_are_some() {
        let one = slice(
            "one",
            json!([
                endpoint("10.0.0.2", true, true, false),
                endpoint("10.0.0.3", false, false, false),
                endpoint("10.0.0.4", false, true, true),
            ]),
        );
        let two = slice("two", json!([{"addresses": ["10.0.0.1"]}]));
        assert_eq!(found(&[one, two]), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    }

    #[test]
    fn where_none_is_ready_those_that_serve_their_end_are_used() {
        let ending = slice(
            "one",
            json!([
                endpoint("10.0.0.3", false, false, false),
                endpoint("10.0.0.4", false, true, true),
                endpoint("10.0.0.5", false, false, true),
            ]),
        );
        assert_eq!(found(&[ending]), ["10.0.0.4:8080"]);
        assert!(found(&[slice("none", json!([]))]).is_empty());
    }

    #[test]
    fn an_address_in_two_slices_is_one() {
        let moving = json!([endpoint("10.0.0.2", true, true, false)]);
        assert_eq!(
            found(&[slice("one", moving.clone()), slice("two", moving)]).len(),
            1
        );
    }

    #[test]
    fn a_list_counts_when_it_is_whole() {
        let ready = |name: &str| slice(name, json!([endpoint("10.0.0.2", true, true, false)]));
        let mut slices = Slices::default();
        assert!(slices.take(Event::Apply(ready("gone"))));
        slices.take(Event::Init);
        assert!(!slices.take(Event::InitApply(ready("kept"))));
        assert!(
            slices.known.contains_key("gone"),
            "half a list says nothing of the rest"
        );
        assert!(slices.take(Event::InitDone));
        let names: Vec<&String> = slices.known.keys().collect();
        assert_eq!(names, ["kept"]);
    }
}
