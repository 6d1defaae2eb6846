//! Passes connections on, from an address that pods reach to a port on loopback.
//!
//! The programs of a fleet listen on loopback only. What pods may reach is lent to them one port at a time,
//! on the machine's end of their node's link.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::ready;

/// The link is up within a tenth of a second.
const LINK_LIMIT: Duration = Duration::from_secs(20);

/// Passes connections on until it is dropped.
pub(super) struct Forward {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Forward {
    /// Listens as soon as this machine has the address. Stays when it is gone for a while.
    pub(super) async fn start(address: SocketAddr, port: u16) -> anyhow::Result<Self> {
        let what = format!("listen on {address}");
        let listener = ready::eventually(LINK_LIMIT, what, || async {
            Ok(TcpListener::bind(address).await?)
        })
        .await?;
        Ok(Self {
            address: listener.local_addr()?,
            _task: AbortOnDropHandle::new(tokio::spawn(serve(listener, port))),
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        // An error is of one connection, such as one that its client gave up.
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(pass(stream, port));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(mut from: TcpStream, port: u16) {
    if let Ok(mut to) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        // Either end may break off at any time: that is for the two who speak to notice.
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_goes_in_comes_out_and_back() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let forward = Forward::start(SocketAddr::from(([127, 0, 0, 1], 0)), port)
            .await
            .unwrap();
        let mut client = TcpStream::connect(forward.address()).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut said = [0; 4];
        served.read_exact(&mut said).await.unwrap();
        served.write_all(b"pong").await.unwrap();
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"pong");
    }
}
