//! Where the program stands in its life. Written by [`crate::server`] alone.

use tokio::sync::watch;

/// A part of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It takes requests.
    Serving,
    /// It was told to end: it is not ready, and each answer ends its connection, so that callers go elsewhere.
    Draining,
}

/// To write it.
pub(crate) type Sender = watch::Sender<Phase>;

/// To read it.
pub(crate) type Receiver = watch::Receiver<Phase>;

/// A program that serves.
pub(crate) fn serving() -> (Sender, Receiver) {
    watch::channel(Phase::Serving)
}
