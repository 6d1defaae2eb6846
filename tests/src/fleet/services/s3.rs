//! An object store: versitygw over files, with versions, over TLS.
//!
//! One for the fleet, a bucket a region, each with versions kept, as backups want it. There is one key, and it
//! is the store's own: users of lesser rights are for later. What the store does otherwise than AWS is
//! listed where it was tried: no lifecycle rules, 404 for an unknown key.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use super::in_capitals;
use super::place::Place;
use super::secret::Secret;
use crate::binaries;
use crate::fleet::process::{Process, Program};
use crate::fleet::{ports, ready};

/// The versitygw that is run, built by `tests/fleet/binaries.sh`.
pub const VERSION: &str = "1.8.0";

const NAME: &str = "s3";

/// The region that requests are signed for; the store knows one.
const SIGNED_FOR: &str = "us-east-1";

/// The name of its key.
const KEY: &str = "fleet";

/// It is up in 0.1 s.
const LIMIT: Duration = Duration::from_secs(30);

/// A running object store. Killed when dropped.
pub struct S3 {
    process: Process,
    port: u16,
    regions: Vec<String>,
    secret: Secret,
    ca: PathBuf,
}

impl S3 {
    pub(super) async fn start(place: &Place, regions: &[String]) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let secret = place.password(NAME)?;
        let program = program(place, port, &secret)?;
        let store = Self {
            process: Process::start(place.folder(), program)?,
            port,
            regions: regions.to_vec(),
            secret,
            ca: place.ca().to_owned(),
        };
        let client = store.client()?;
        let look = || async {
            let listed = client.list_buckets().send().await;
            listed
                .map(|_| ())
                .map_err(|error| DisplayErrorContext(error).to_string())
        };
        ready::until(&store.process, LIMIT, "the object store answers", look).await?;
        for region in regions {
            make_bucket(&client, &bucket(region)).await?;
        }
        Ok(store)
    }

    /// A client that trusts the store's authority.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.client_trusting(&self.ca)
    }

    /// A client that trusts another authority.
    pub fn client_trusting(&self, ca: &std::path::Path) -> anyhow::Result<Client> {
        let authority = std::fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
        let trust = TrustStore::empty().with_pem_certificate(authority);
        let tls = TlsContext::builder().with_trust_store(trust).build()?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let key = Credentials::new(KEY, self.secret.expose(), None, None, "fleet");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .endpoint_url(self.url(Ipv4Addr::LOCALHOST.into()))
            .region(Region::new(SIGNED_FOR))
            .credentials_provider(key)
            .force_path_style(true)
            .build();
        Ok(Client::from_conf(config))
    }

    /// The bucket of a region.
    pub fn bucket(&self, region: &str) -> anyhow::Result<String> {
        let found = self.regions.iter().find(|one| *one == region);
        let found = found.with_context(|| format!("no bucket was made for region `{region}`"))?;
        Ok(bucket(found))
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn environment(&self, address: IpAddr) -> Vec<(String, String)> {
        let mut found = vec![
            ("ALDIS_S3_URL".to_owned(), self.url(address)),
            ("ALDIS_S3_REGION".to_owned(), SIGNED_FOR.to_owned()),
            ("ALDIS_S3_ACCESS_KEY_ID".to_owned(), KEY.to_owned()),
            (
                "ALDIS_S3_SECRET_ACCESS_KEY".to_owned(),
                self.secret.expose().to_owned(),
            ),
        ];
        found.extend(self.regions.iter().map(|region| {
            let variable = format!("ALDIS_S3_{}_BUCKET", in_capitals(region));
            (variable, bucket(region))
        }));
        found
    }

    fn url(&self, address: IpAddr) -> String {
        format!("https://{address}:{}", self.port)
    }
}

fn bucket(region: &str) -> String {
    format!("backups-{region}")
}

/// Paths are absolute: the store changes into its folder before it reads its certificate.
fn program(place: &Place, port: u16, secret: &Secret) -> anyhow::Result<Program> {
    let gateway = binaries::find("versitygw", VERSION, "--version")?;
    let identity = place.identity(NAME)?;
    let objects = place.make_below("s3/objects")?;
    let versions = place.make_below("s3/versions")?;
    Ok(Program::new(NAME, gateway)
        .environment("ROOT_ACCESS_KEY", KEY)
        .environment("ROOT_SECRET_KEY", secret.expose())
        .arguments([
            format!("--port=127.0.0.1:{port}"),
            format!("--region={SIGNED_FOR}"),
        ])
        .arguments(["--cert".into(), identity.certificate.into_os_string()])
        .arguments(["--key".into(), identity.key.into_os_string()])
        .arguments(["--quiet", "posix"])
        .arguments(["--versioning-dir".into(), versions.into_os_string()])
        .arguments([objects]))
}

async fn make_bucket(client: &Client, bucket: &str) -> anyhow::Result<()> {
    let made = client.create_bucket().bucket(bucket).send().await;
    made.with_context(|| format!("make bucket {bucket}"))?;
    let kept = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Enabled)
        .build();
    let kept = client
        .put_bucket_versioning()
        .bucket(bucket)
        .versioning_configuration(kept)
        .send()
        .await;
    kept.with_context(|| format!("keep versions in bucket {bucket}"))?;
    Ok(())
}
