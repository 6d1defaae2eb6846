//! What runs in a pod is a program, reached as programs are: by its address, its log, a port, a command.

use std::net::SocketAddr;

use futures::StreamExt;
use kube::api::{AttachParams, LogParams};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::stage;

/// Asks for a path over any stream.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn a_pod_serves_on_its_address_and_its_log_tells_what() {
    let Some(stage) = stage("serves").await else {
        return;
    };
    let address = stage.serving("web").await;
    let stream = TcpStream::connect(format!("{address}:8080")).await.unwrap();
    let said = ask(stream, "/by-address").await;
    assert!(said.ends_with("/by-address by web"), "{said}");
    let log = stage.pods.logs("web", &LogParams::default()).await.unwrap();
    assert_eq!(log, "serving\nserved /by-address\n");
}

#[tokio::test]
async fn a_port_is_forwarded_to_the_program_in_the_pod() {
    let Some(stage) = stage("forwards").await else {
        return;
    };
    stage.serving("web").await;
    let mut forwarder = stage.pods.portforward("web", &[8080]).await.unwrap();
    let said = ask(forwarder.take_stream(8080).unwrap(), "/by-port").await;
    assert!(said.ends_with("/by-port by web"), "{said}");
}

#[tokio::test]
async fn a_command_runs_in_the_pod_and_its_code_comes_back() {
    let Some(stage) = stage("executes").await else {
        return;
    };
    stage.serving("web").await;
    let run = |words: &'static [&'static str]| {
        let pods = stage.pods.clone();
        async move {
            let mut attached = pods
                .exec("web", words.iter().copied(), &AttachParams::default())
                .await
                .unwrap();
            let mut out = Vec::new();
            let mut stdout = tokio_util::io::ReaderStream::new(attached.stdout().unwrap());
            while let Some(part) = stdout.next().await {
                out.extend(part.unwrap());
            }
            let status = attached.take_status().unwrap().await.unwrap();
            (String::from_utf8(out).unwrap(), status)
        }
    };
    let (said, status) = run(&["/server", "say", "hello"]).await;
    assert_eq!(
        (said.as_str(), status.status.as_deref()),
        ("said hello\n", Some("Success"))
    );
    let (_, status) = run(&["/server", "crash"]).await;
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    assert!(status.message.unwrap().contains("exit code 3"));
}

#[tokio::test]
async fn a_pod_finds_its_api_server_as_any_client_in_a_cluster_does() {
    let Some(stage) = stage("reaches").await else {
        return;
    };
    stage.serving("web").await;
    let mut attached = stage
        .pods
        .exec(
            "web",
            ["/server", "reach-the-api"],
            &AttachParams::default(),
        )
        .await
        .unwrap();
    let mut said = String::new();
    attached
        .stdout()
        .unwrap()
        .read_to_string(&mut said)
        .await
        .unwrap();
    let status = attached.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"), "{said}");
}

#[tokio::test]
async fn a_kubelet_lets_nobody_in_without_a_name() {
    let Some(stage) = stage("refuses").await else {
        return;
    };
    let kubelet = stage.node().kubelet();
    let anonymous = answer(&client(kubelet, None), "/pods").await;
    assert_eq!(anonymous, 401);
    let agent = stage.cluster.agent_kubeconfig();
    let named = answer(&client(kubelet, Some(&agent)), "/pods").await;
    assert_eq!(named, 403, "a name without the right");
}

/// A client of a kubelet. Who it is comes from a kubeconfig.
fn client(kubelet: SocketAddr, who: Option<&std::path::Path>) -> kube::Client {
    let url = format!("https://{kubelet}").parse().unwrap();
    let mut config = kube::Config::new(url);
    config.accept_invalid_certs = true;
    if let Some(file) = who {
        let read = kube::config::Kubeconfig::read_from(file).unwrap();
        config.auth_info = read.auth_infos[0].auth_info.clone().unwrap();
    }
    kube::Client::try_from(config).unwrap()
}

async fn answer(client: &kube::Client, path: &str) -> u16 {
    let request = http::Request::get(path)
        .body(kube::client::Body::empty())
        .unwrap();
    client.send(request).await.unwrap().status().as_u16()
}
