//! One request, from connecting to the last byte of its answer, on a connection of its own: that is how a caller
//! meets an address that has just gone.

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use aldis_shop::requests::RELEASE_HEADER;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::count::{Cause, Outcome};

/// Sends a request, and says how it ended within the limit.
pub(super) async fn exchange(address: SocketAddr, path: &str, limit: Duration) -> Outcome {
    let started = Instant::now();
    let mut release = None;
    let exchanged = tokio::time::timeout(limit, whole(address, path, &mut release)).await;
    let late = || {
        Err((
            Cause::Timeout,
            format!("not within {} ms", limit.as_millis()),
        ))
    };
    Outcome {
        address: Some(address),
        result: exchanged.unwrap_or_else(|_| late()),
        took: started.elapsed(),
        release,
    }
}

/// What happens when a Service has no address: callers are refused by the network itself.
pub(super) fn nowhere() -> Outcome {
    Outcome {
        address: None,
        release: None,
        result: Err((
            Cause::NoAddress,
            "the Service has no ready address".to_owned(),
        )),
        took: Duration::ZERO,
    }
}

/// `release` is told as soon as it is known, since a later part may never come.
async fn whole(
    address: SocketAddr,
    path: &str,
    release: &mut Option<String>,
) -> Result<(), (Cause, String)> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| of_system(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| of_http(&e))?;
    let exchanging = async {
        let request = request(address, path)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| of_http(&e))?;
        *release = named(&response);
        let status = response.status();
        response
            .into_body()
            .collect()
            .await
            .map_err(|e| of_http(&e))?;
        if status.is_client_error() || status.is_server_error() {
            return Err((Cause::Status(status.as_u16()), status.to_string()));
        }
        Ok(())
    };
    // The connection carries the exchange and may end before it has said all; what it means is the exchange's to say.
    let carrying = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        exchanged = exchanging => exchanged,
        never = carrying => never,
    }
}

fn request(address: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>, (Cause, String)> {
    Request::get(path)
        .header(HOST, address.to_string())
        .header(USER_AGENT, "aldis-load")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| (Cause::Other, error.to_string()))
}

fn named(response: &Response<Incoming>) -> Option<String> {
    let value = response.headers().get(RELEASE_HEADER)?;
    value.to_str().ok().map(str::to_owned)
}

fn of_http(error: &hyper::Error) -> (Cause, String) {
    let system = error
        .source()
        .and_then(|e| e.downcast_ref::<std::io::Error>());
    let cause = match system {
        Some(error) => of_system(error).0,
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => {
            Cause::Reset
        }
        None => Cause::Other,
    };
    (cause, error.to_string())
}

fn of_system(error: &std::io::Error) -> (Cause, String) {
    let cause = match error.kind() {
        ErrorKind::ConnectionRefused => Cause::Refused,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => Cause::Reset,
        ErrorKind::TimedOut => Cause::Timeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Cause::Unreachable,
        _ => Cause::Other,
    };
    (cause, error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Long beside what happens on one machine.
    const LIMIT: Duration = Duration::from_secs(20);

    /// A server that reads a request, answers with this text, and goes.
    async fn says(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 1024];
            let _ = stream.read(&mut read).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
        });
        address
    }

    fn cause(outcome: Outcome) -> Cause {
        outcome.result.expect_err("it failed").0
    }

    #[tokio::test]
    async fn a_whole_answer_is_served_and_names_its_release() {
        let text = "HTTP/1.1 200 OK\r\nx-shop-release: v7\r\ncontent-length: 2\r\n\r\nok";
        let outcome = exchange(says(text).await, "/", LIMIT).await;
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(outcome.release.as_deref(), Some("v7"));
    }

    #[tokio::test]
    async fn an_error_is_a_failure_of_the_release_that_answered() {
        let text = "HTTP/1.1 503 Away\r\nx-shop-release: v7\r\ncontent-length: 0\r\n\r\n";
        let outcome = exchange(says(text).await, "/", LIMIT).await;
        assert_eq!(outcome.release.as_deref(), Some("v7"));
        assert_eq!(cause(outcome), Cause::Status(503));
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        let text = "HTTP/1.1 200 OK\r\nx-shop-release: v7\r\ncontent-length: 10\r\n\r\nok";
        let outcome = exchange(says(text).await, "/", LIMIT).await;
        assert_eq!(outcome.release.as_deref(), Some("v7"));
        assert_eq!(cause(outcome), Cause::Reset);
        let silent = exchange(says("").await, "/", LIMIT).await;
        assert_eq!(cause(silent), Cause::Reset);
    }

    #[tokio::test]
    async fn an_address_without_a_listener_refuses() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(cause(exchange(address, "/", LIMIT).await), Cause::Refused);
    }

    #[tokio::test]
    async fn what_never_answers_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limit = Duration::from_millis(50);
        assert_eq!(cause(exchange(address, "/", limit).await), Cause::Timeout);
    }

    #[tokio::test]
    async fn what_is_no_http_is_the_servers_fault() {
        let outcome = exchange(says("220 mail.example ESMTP\r\n").await, "/", LIMIT).await;
        assert_eq!(cause(outcome), Cause::Other);
    }
}
