//! How a running container behaves, told from its image alone. The words may stand anywhere in a tag.
//!
//! | tag | answers | logs |
//! |---|---|---|
//! | `:…failing…` | 500 | that its database refuses it |
//! | `:…slow…` | after a second | that it waits |
//! | `:…crash…` | nothing: it is never ready | what it died of |
//! | any other | 200 | that it listens |
//!
//! What the pod's state becomes is kwok's: `tests/fleet/stages.yaml`.

use std::time::Duration;

use http::StatusCode;

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// Its answer to every request.
    pub(super) status: StatusCode,
    /// How long it takes.
    pub(super) delay: Duration,
    /// What it logs when it has started.
    pub(super) says: &'static str,
}

impl Behaviour {
    /// That of an image.
    pub(super) fn of(image: &str) -> Self {
        // A port of a registry is no tag.
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        let tag = if tag.contains('/') { "" } else { tag };
        let well = Self {
            status: StatusCode::OK,
            delay: Duration::ZERO,
            says: "listening",
        };
        if tag.contains("crash") {
            let says = "panic: open /etc/app/config.json: no such file";
            Self { says, ..well }
        } else if tag.contains("failing") {
            Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                says: "error: database refused the connection",
                ..well
            }
        } else if tag.contains("slow") {
            Self {
                delay: Duration::from_secs(1),
                says: "warning: waiting for a lock",
                ..well
            }
        } else {
            well
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_counts() {
        let status = |image: &str| Behaviour::of(image).status.as_u16();
        assert_eq!(status("registry.example/failing/app:v1"), 200);
        assert_eq!(status("shop/checkout:v2.18.0-failing"), 500);
        assert_eq!(status("shop/checkout"), 200);
        assert_eq!(status("localhost:5000/failing-app"), 200);
    }

    #[test]
    fn slow_is_slow_and_still_well() {
        let slow = Behaviour::of("a:slow-1");
        assert_eq!(slow.status, StatusCode::OK);
        assert!(slow.delay > Duration::ZERO);
    }
}
