//! The head of an HTTP request: which pod it is about, and the same head asking for another.
//!
//! Only the first line is understood. All else, such as an upgrade to SPDY or WebSocket, is between the
//! two ends.

use anyhow::Context;

/// The bytes read so far: a whole head, and perhaps the beginning of what follows.
#[derive(Debug)]
pub(super) struct Head {
    method: String,
    target: String,
    /// Version, headers, what follows: from the blank after the target on.
    rest: Vec<u8>,
    upgrades: bool,
}

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A connection into a pod.
    PortForward {
        namespace: &'a str,
        pod: &'a str,
        /// WebSocket says it here; SPDY says it later.
        port: Option<u16>,
    },
    /// The log of a container.
    Logs {
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
    },
    /// Anything else.
    Other,
}

impl Head {
    /// Reads a head. `None` until it is whole.
    pub(super) fn parse(read: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = find(read, b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&read[..end]).context("read a request's head")?;
        let line = text.lines().next().unwrap_or_default();
        let mut words = line.split(' ');
        let (method, target) = words
            .next()
            .zip(words.next())
            .context("read a request's first line")?;
        let lower = text.to_ascii_lowercase();
        Ok(Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            rest: read[method.len() + 1 + target.len()..].to_vec(),
            upgrades: lower.contains("\r\nupgrade:"),
        }))
    }

    /// What it wants.
    pub(super) fn route(&self) -> Route<'_> {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts[..] {
            ["portForward", namespace, pod, ..] => Route::PortForward {
                namespace,
                pod,
                port: port(query),
            },
            ["containerLogs", namespace, pod, container] => Route::Logs {
                namespace,
                pod,
                container,
            },
            _ => Route::Other,
        }
    }

    /// The same with another path, as the only request of its connection: a second one would pass unseen.
    pub(super) fn once(&self, path: Option<&str>) -> Vec<u8> {
        let target = match (path, self.target.split_once('?')) {
            (Some(path), Some((_, query))) => format!("{path}?{query}"),
            (Some(path), None) => path.to_owned(),
            (None, _) => self.target.clone(),
        };
        let mut head = format!("{} {target}", self.method).into_bytes();
        let line_end = find(&self.rest, b"\r\n").unwrap_or_default();
        head.extend_from_slice(&self.rest[..line_end]);
        if !self.upgrades {
            head.extend_from_slice(b"\r\nConnection: close");
        }
        head.extend_from_slice(&self.rest[line_end..]);
        head
    }
}

/// One port. Several, of which nothing in a path could say which is meant, are left to kwok.
fn port(query: &str) -> Option<u16> {
    let mut pairs = query.split('&');
    pairs.find_map(|pair| pair.strip_prefix("port=")?.parse().ok())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|seen| seen == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        assert!(
            Head::parse(b"GET / HTTP/1.1\r\nHost: x\r\n")
                .unwrap()
                .is_none()
        );
        assert_eq!(
            head("GET / HTTP/1.1\r\nHost: x\r\n\r\n").route(),
            Route::Other
        );
    }

    #[test]
    fn the_pod_is_in_the_path_and_the_port_of_a_websocket_in_the_query() {
        assert_eq!(
            head("GET /portForward/shop/web-1?port=8080 HTTP/1.1\r\n\r\n").route(),
            Route::PortForward {
                namespace: "shop",
                pod: "web-1",
                port: Some(8080)
            }
        );
        assert_eq!(
            head("GET /containerLogs/shop/web-1/app?follow=true HTTP/1.1\r\n\r\n").route(),
            Route::Logs {
                namespace: "shop",
                pod: "web-1",
                container: "app"
            }
        );
    }

    #[test]
    fn a_rewritten_head_keeps_query_headers_and_what_follows() {
        let head = head("GET /containerLogs/shop/web-1/app?tail=3 HTTP/1.1\r\nHost: x\r\n\r\nmore");
        assert_eq!(
            String::from_utf8(head.once(Some("/containerLogs/shop/slot-1/app"))).unwrap(),
            "GET /containerLogs/shop/slot-1/app?tail=3 HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\nmore"
        );
    }

    #[test]
    fn an_upgrade_keeps_its_connection_header() {
        let text =
            "POST /portForward/a/b HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
        assert_eq!(head(text).once(None), text.as_bytes());
    }
}
