//! The object store: what was put is had, and so is what it replaced.

use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::ByteStream;

use crate::{REGION, another_authority, services};

async fn put(client: &aws_sdk_s3::Client, bucket: &str, key: &str, body: &'static str) -> String {
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
    let (client, bucket) = (store.client().unwrap(), store.bucket(REGION).unwrap());
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
    let (client, bucket) = (store.client().unwrap(), store.bucket(REGION).unwrap());
    put(&client, &bucket, "once", "first").await;
    let again = client
        .put_object()
        .bucket(&bucket)
        .key("once")
        .body(ByteStream::from_static(b"second"))
        .if_none_match("*")
        .send()
        .await
        .unwrap_err();
    assert_eq!(again.raw_response().unwrap().status().as_u16(), 412);
}

#[tokio::test]
async fn each_region_has_a_bucket() {
    let store = services().await.s3().unwrap();
    let listed = store.client().unwrap().list_buckets().send().await.unwrap();
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
        .client_trusting(&other)
        .unwrap();
    let refused = client.list_buckets().send().await.unwrap_err();
    let said = DisplayErrorContext(refused).to_string();
    assert!(said.contains("UnknownIssuer"), "{said}");
}
