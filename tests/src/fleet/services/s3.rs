//! An object store: versitygw over files, with versions, over TLS.
//!
//! One for the fleet, a bucket a region, each with versions kept, as backups want it, and a key a region that is
//! good for that bucket only (see [`User`]). What the store does otherwise than AWS is listed where it was tried:
//! no lifecycle rules, 404 for an unknown key, users known to a policy by the name of their key.

mod users;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};

use self::users::Key;
pub use self::users::User;
use super::place::Place;
use super::{below, in_capitals};
use crate::binaries;
use crate::fleet::process::{Process, Program};
use crate::fleet::{ports, ready};

/// The versitygw that is run, built by `tests/fleet/binaries.sh`.
pub const VERSION: &str = "1.8.0";

const NAME: &str = "s3";

/// The region that requests are signed for; the store knows one.
const SIGNED_FOR: &str = "us-east-1";

/// It is up in 0.1 s.
const LIMIT: Duration = Duration::from_secs(30);

/// A running object store. Killed when dropped.
pub struct S3 {
    process: Process,
    port: u16,
    regions: Vec<Regional>,
    own: Key,
    ca: PathBuf,
}

/// What a region has.
struct Regional {
    region: String,
    bucket: String,
    key: Key,
}

impl S3 {
    pub(super) async fn start(place: &Place, regions: &[String]) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let own = User::Fleet.draw(place)?;
        let regions = regions.iter().map(|region| Regional::draw(place, region));
        let regions = regions.collect::<anyhow::Result<Vec<_>>>()?;
        let program = program(place, port, &own, &regions)?;
        let store = Self {
            process: Process::start(place.folder(), program)?,
            port,
            regions,
            own,
            ca: place.ca().to_owned(),
        };
        let client = store.client(User::Fleet)?;
        let look = || async {
            let listed = client.list_buckets().send().await;
            listed
                .map(|_| ())
                .map_err(|error| DisplayErrorContext(error).to_string())
        };
        ready::until(&store.process, LIMIT, "the object store answers", look).await?;
        for regional in &store.regions {
            make_bucket(&client, regional).await?;
        }
        Ok(store)
    }

    /// A client that has a user's key and trusts the store's authority.
    pub fn client(&self, user: User<'_>) -> anyhow::Result<Client> {
        self.client_trusting(user, &self.ca)
    }

    /// A client that trusts another authority.
    pub fn client_trusting(&self, user: User<'_>, ca: &Path) -> anyhow::Result<Client> {
        let authority = std::fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
        let trust = TrustStore::empty().with_pem_certificate(authority);
        let tls = TlsContext::builder().with_trust_store(trust).build()?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let key = self.key(user)?;
        let key = Credentials::new(&key.id, key.secret.expose(), None, None, "fleet");
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

    /// Runs the store's own tool for its administrator, with a user's key. What it is refused is in the error.
    pub async fn administer(&self, user: User<'_>, arguments: &[&str]) -> anyhow::Result<String> {
        let key = self.key(user)?;
        let output = tokio::process::Command::new(gateway()?)
            .args([
                "admin",
                "--endpoint-url",
                &self.url(Ipv4Addr::LOCALHOST.into()),
            ])
            .args(arguments)
            .env("ADMIN_ACCESS_KEY_ID", &key.id)
            .env("ADMIN_SECRET_ACCESS_KEY", key.secret.expose())
            .env("SSL_CERT_FILE", &self.ca)
            .kill_on_drop(true)
            .output()
            .await
            .context("run `versitygw admin`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`versitygw admin` failed: {said}");
        String::from_utf8(output.stdout).context("read what `versitygw admin` said")
    }

    /// The bucket of a region.
    pub fn bucket(&self, region: &str) -> anyhow::Result<String> {
        Ok(self.regional(region)?.bucket.clone())
    }

    fn regional(&self, region: &str) -> anyhow::Result<&Regional> {
        let found = self.regions.iter().find(|one| one.region == region);
        found.with_context(|| format!("no bucket was made for region `{region}`"))
    }

    fn key(&self, user: User<'_>) -> anyhow::Result<&Key> {
        match user {
            User::Fleet => Ok(&self.own),
            User::Aldis(region) => Ok(&self.regional(region)?.key),
        }
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
        ];
        for one in &self.regions {
            let region = in_capitals(&one.region);
            found.push((format!("ALDIS_S3_{region}_BUCKET"), one.bucket.clone()));
            found.extend(one.key.environment(&region));
        }
        found.extend(self.own.environment("ADMIN"));
        found
    }

    fn url(&self, address: IpAddr) -> String {
        format!("https://{address}:{}", self.port)
    }
}

impl Regional {
    fn draw(place: &Place, region: &str) -> anyhow::Result<Self> {
        Ok(Self {
            region: region.to_owned(),
            bucket: format!("backups-{region}"),
            key: User::Aldis(region).draw(place)?,
        })
    }
}

impl Key {
    fn environment(&self, whose: &str) -> [(String, String); 2] {
        [
            (format!("ALDIS_S3_{whose}_ACCESS_KEY_ID"), self.id.clone()),
            (
                format!("ALDIS_S3_{whose}_SECRET_ACCESS_KEY"),
                self.secret.expose().to_owned(),
            ),
        ]
    }
}

fn gateway() -> anyhow::Result<PathBuf> {
    Ok(binaries::find("versitygw", VERSION, "--version")?)
}

/// Paths are absolute: the store changes into its folder before it reads its certificate.
fn program(place: &Place, port: u16, own: &Key, regions: &[Regional]) -> anyhow::Result<Program> {
    let accounts = users::accounts(regions.iter().map(|one| &one.key));
    let accounts = place
        .folder()
        .write(below("s3/users/users.json"), accounts)?;
    let accounts = accounts.parent().context("a file has a folder")?.to_owned();
    let identity = place.identity(NAME)?;
    let objects = place.make_below("s3/objects")?;
    let versions = place.make_below("s3/versions")?;
    Ok(Program::new(NAME, gateway()?)
        .environment("ROOT_ACCESS_KEY", &own.id)
        .environment("ROOT_SECRET_KEY", own.secret.expose())
        .arguments([
            format!("--port=127.0.0.1:{port}"),
            format!("--region={SIGNED_FOR}"),
        ])
        .arguments(["--cert".into(), identity.certificate.into_os_string()])
        .arguments(["--key".into(), identity.key.into_os_string()])
        .arguments(["--iam-dir".into(), accounts.into_os_string()])
        .arguments(["--quiet", "posix"])
        .arguments(["--versioning-dir".into(), versions.into_os_string()])
        .arguments([objects]))
}

async fn make_bucket(client: &Client, regional: &Regional) -> anyhow::Result<()> {
    let bucket = &regional.bucket;
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
    let allowed = client
        .put_bucket_policy()
        .bucket(bucket)
        .policy(users::policy(bucket, &regional.key))
        .send()
        .await;
    allowed.with_context(|| format!("let `{}` use bucket {bucket}", regional.key.id))?;
    Ok(())
}
