//! The object store: what was put is had, and so is what it replaced; and a key of a region is good for no more.

use aldis_tests::fleet::services::s3::{S3, User};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

use crate::{REGION, another_authority, services};

/// The other region, whose bucket is none of the first one's business.
const OTHER: &str = "us-east";

/// As the agents of a region meet the store: with its key, and its bucket.
fn of_region(store: &S3) -> (Client, String) {
    let client = store.client(User::Aldis(REGION)).unwrap();
    (client, store.bucket(REGION).unwrap())
}

/// The status of a refusal.
fn refused<T, E>(answer: Result<T, SdkError<E>>) -> u16 {
    let error = answer.err().expect("it is refused");
    error.raw_response().unwrap().status().as_u16()
}

async fn put(client: &Client, bucket: &str, key: &str, body: &'static str) -> String {
    let body = ByteStream::from_static(body.as_bytes());
    let put = client
        .put_object()
        .bucket(bucket)
        .key(key)
        .body(body)
        .send()
        .await;
    put.unwrap().version_id().unwrap().to_owned()
}

async fn text(found: aws_sdk_s3::operation::get_object::GetObjectOutput) -> String {
    let bytes = found.body.collect().await.unwrap().to_vec();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn an_object_that_was_replaced_is_had_by_its_version() {
    let store = services().await.s3().unwrap();
    let (client, bucket) = of_region(store);
    let first = put(&client, &bucket, "dump", "monday").await;
    let second = put(&client, &bucket, "dump", "tuesday").await;
    assert_ne!(first, second);

    let newest = client
        .get_object()
        .bucket(&bucket)
        .key("dump")
        .send()
        .await
        .unwrap();
    assert_eq!(text(newest).await, "tuesday");
    let older = client
        .get_object()
        .bucket(&bucket)
        .key("dump")
        .version_id(&first);
    assert_eq!(text(older.send().await.unwrap()).await, "monday");
    let listed = client.list_object_versions().bucket(&bucket).prefix("dump");
    assert_eq!(listed.send().await.unwrap().versions().len(), 2);
}

#[tokio::test]
async fn an_object_that_is_there_is_not_written_over_where_it_must_not_be() {
    let store = services().await.s3().unwrap();
    let (client, bucket) = of_region(store);
    put(&client, &bucket, "once", "first").await;
    let again = client
        .put_object()
        .bucket(&bucket)
        .key("once")
        .body(ByteStream::from_static(b"second"))
        .if_none_match("*")
        .send()
        .await;
    assert_eq!(refused(again), 412);
}

#[tokio::test]
async fn each_region_has_a_bucket() {
    let store = services().await.s3().unwrap();
    let fleet = store.client(User::Fleet).unwrap();
    let listed = fleet.list_buckets().send().await.unwrap();
    let names: Vec<_> = listed
        .buckets()
        .iter()
        .filter_map(|one| one.name())
        .collect();
    assert_eq!(names, ["backups-eu-west", "backups-us-east"]);
}

#[tokio::test]
async fn a_store_of_another_authority_is_not_talked_to() {
    let other = tempfile::tempdir().unwrap();
    let other = another_authority(other.path()).unwrap();
    let client = services()
        .await
        .s3()
        .unwrap()
        .client_trusting(User::Fleet, &other)
        .unwrap();
    let refused = client.list_buckets().send().await.unwrap_err();
    let said = DisplayErrorContext(refused).to_string();
    assert!(said.contains("UnknownIssuer"), "{said}");
}

#[tokio::test]
async fn a_key_of_a_region_opens_no_other_bucket() {
    let store = services().await.s3().unwrap();
    let (client, _bucket) = of_region(store);
    let other = store.bucket(OTHER).unwrap();
    let owner = store.client(User::Aldis(OTHER)).unwrap();
    put(&owner, &other, "theirs", "a dump").await;

    let read = client.get_object().bucket(&other).key("theirs");
    assert_eq!(refused(read.send().await), 403);
    let written = client.put_object().bucket(&other).key("theirs");
    assert_eq!(refused(written.send().await), 403);
    let deleted = client.delete_object().bucket(&other).key("theirs");
    assert_eq!(refused(deleted.send().await), 403);
    let listed = client.list_objects_v2().bucket(&other);
    assert_eq!(refused(listed.send().await), 403);
}

#[tokio::test]
async fn a_key_of_a_region_cannot_undo_what_protects_its_backups() {
    let store = services().await.s3().unwrap();
    let (client, bucket) = of_region(store);
    let version = put(&client, &bucket, "protected", "a dump").await;
    let deleted = client.delete_object().bucket(&bucket).key("protected");
    deleted.send().await.unwrap();

    let for_ever = client.delete_object().bucket(&bucket).key("protected");
    let for_ever = for_ever.version_id(&version).send().await;
    assert_eq!(refused(for_ever), 403);
    let no_versions = VersioningConfiguration::builder()
        .status(BucketVersioningStatus::Suspended)
        .build();
    let no_versions = client
        .put_bucket_versioning()
        .bucket(&bucket)
        .versioning_configuration(no_versions);
    assert_eq!(refused(no_versions.send().await), 403);
    let no_policy = client.delete_bucket_policy().bucket(&bucket);
    assert_eq!(refused(no_policy.send().await), 403);

    let older = client.get_object().bucket(&bucket).key("protected");
    let older = older.version_id(&version).send().await.unwrap();
    assert_eq!(text(older).await, "a dump");
}

#[tokio::test]
async fn a_key_of_a_region_administers_nothing() {
    let store = services().await.s3().unwrap();
    let (client, bucket) = of_region(store);
    let made = client.create_bucket().bucket("mine").send().await;
    assert_eq!(refused(made), 403);
    let gone = client.delete_bucket().bucket(&bucket).send().await;
    assert_eq!(refused(gone), 403);
    let region = User::Aldis(REGION);
    let users = store.administer(region, &["list-users"]).await;
    let said = users.unwrap_err().to_string();
    assert!(said.contains("AccessDenied"), "{said}");

    let users = store
        .administer(User::Fleet, &["list-users"])
        .await
        .unwrap();
    assert!(users.contains("aldis-eu-west"), "{users}");
}

#[tokio::test]
async fn a_shell_is_given_the_keys_of_regions_and_the_own_one_by_another_name() {
    let variables = services().await.environment();
    let said = |name: &str| {
        let found = variables.iter().find(|(variable, _)| variable == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(
        said("ALDIS_S3_EU_WEST_ACCESS_KEY_ID"),
        Some("aldis-eu-west")
    );
    assert_eq!(
        said("ALDIS_S3_US_EAST_ACCESS_KEY_ID"),
        Some("aldis-us-east")
    );
    let own = said("ALDIS_S3_ADMIN_SECRET_ACCESS_KEY").unwrap();
    let with_it = variables.iter().filter(|(_, value)| value.contains(own));
    assert_eq!(with_it.count(), 1);
}
