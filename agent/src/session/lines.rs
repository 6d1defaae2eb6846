//! Log lines, on a connection of their own: one that nobody reads fills its own windows and nobody else's.

use std::time::Duration;

use aldis_core::ids::JobId;
use aldis_proto::v1;
use aldis_proto::v1::logs_request::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Settings;
use super::open::{self, client};
use crate::config::Endpoint;
use crate::logs::Reader;
use crate::parts::Parts;

/// Lines that may wait for the connection.
const LINES: usize = 64;

/// For the last lines to be read once all were handed over.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// Sends one job's lines until all are sent, or nobody reads them any more.
pub(super) async fn send(
    parts: &Parts,
    settings: &Settings,
    endpoint: &Endpoint,
    open: &v1::OpenLogs,
) -> Result<(), open::Error> {
    let mut client = client(settings, endpoint).await?;
    let (sender, requests) = mpsc::channel(LINES);
    let job = JobId::new(open.job.clone());
    let reader = parts.logs.reader(&job, open.after);
    let target = parts.target.to_string();
    let reading = read(reader, sender, open, &target);
    let answering = async {
        let response = client.logs(ReceiverStream::new(requests)).await?;
        let mut response = response.into_inner();
        while response.message().await?.is_some() {}
        Ok(())
    };
    let sent = tokio::select! {
        // Its end may come before all is read: then nobody wants the rest.
        sent = answering => sent,
        () = async { reading.await; tokio::time::sleep(TAKEN_WITHIN).await } => Ok(()),
    };
    sent.map_err(open::Error::Refused)
}

async fn read(
    mut reader: Reader,
    sender: mpsc::Sender<v1::LogsRequest>,
    open: &v1::OpenLogs,
    target: &str,
) {
    let say = async |message| {
        let request = v1::LogsRequest {
            message: Some(message),
        };
        sender.send(request).await.is_ok()
    };
    if !say(Message::Stream(open.stream)).await {
        return;
    }
    loop {
        let lines = match reader.read() {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(job = open.job, %error, "log not read");
                return;
            }
        };
        if lines.is_empty() && !open.follow {
            say(Message::End(true)).await;
            return;
        }
        if lines.is_empty() {
            tokio::select! {
                () = reader.wait() => {}
                () = sender.closed() => return,
            }
        }
        for line in lines {
            let line = v1::LogLine {
                job: open.job.clone(),
                target: target.to_owned(),
                step: line.step,
                sequence: line.number,
                at_ms: line.at,
                text: line.text,
            };
            if !say(Message::Line(line)).await {
                return;
            }
        }
    }
}
