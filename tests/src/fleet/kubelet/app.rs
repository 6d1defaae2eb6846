//! The application in a pod, as far as anyone outside can tell: answers HTTP by its image, as the shop would (see
//! [`Release`]), and logs it.
//!
//! `/version` says the release, every other path says which pod answers. A release that flaps does so on real nodes
//! only: no probe is sent here, and nobody knows since when a container runs.

use std::convert::Infallible;
use std::time::Duration;

use aldis_shop::release::{Release, is_of_customers};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::log::Log;

/// The container that a connection reached.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    /// Its pod.
    pub(super) pod: String,
    /// Its image.
    pub(super) image: String,
    /// Its log.
    pub(super) log: Log,
}

/// Answers all requests of a connection.
pub(super) async fn serve(stream: TcpStream, tenant: Tenant) {
    let service = service_fn(|request: Request<Incoming>| {
        let tenant = tenant.clone();
        async move { Ok::<_, Infallible>(tenant.answer(request.uri().path()).await) }
    });
    // The client may leave at any time; there is nobody else to tell.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Tenant {
    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let release = Release::of_image(&self.image);
        let behaviour = release.behaviour();
        if is_of_customers(path) {
            tokio::time::sleep(behaviour.delay).await;
        }
        // Connections share no counter, so each request draws its place.
        let status = match behaviour.fails(path, rand::random_range(0..100), Duration::ZERO) {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
        self.log.say(&format!("GET {path} {}", status.as_u16()));
        let body = match path {
            "/version" if status.is_success() => format!("{}\n", release.tag()),
            _ => format!("{} {status}\n", self.pod),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    }
}
