//! A release that fails is stopped by its budget and put back wherever it was.

use aldis_tests::practice::rests;

use aldis_tests::stage::{Stage, name};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";

#[tokio::test]
async fn one_that_fails_in_its_second_wave_is_put_back_everywhere_and_goes_no_further() {
    let stage = Stage::shared(fleet().await, "second-wave-fails").await;
    stage.release(&[OLD]).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    stage
        .publish(&["shop/checkout:v2-only-in-eu-west-prod-1"])
        .await
        .unwrap();
    let image = "image=shop/checkout:v2-only-in-eu-west-prod-1";
    let words = stage.words("deploy-image", &[image]);
    let job = stage.submit(&words).await.unwrap();
    let said = stage
        .aldis(&["watch", &job, "--progress", "plain"])
        .await
        .unwrap()
        .ended(4)
        .unwrap();
    for word in [
        "eu-west/prod-2",
        "wait_rollout",
        "pod checkout-",
        "ImagePullBackOff",
        "maxFailures",
    ] {
        assert!(said.out.contains(word), "the verdict names {word}: {said}");
    }
    let view = stage.view(&job).await.unwrap();
    assert_eq!(
        rests(&view),
        ["restored", "restored", "untouched", "untouched"]
    );
    assert_eq!(stage.images().await.unwrap(), [OLD; 4]);
    assert_eq!(
        stage.changes_since(&before).await.unwrap(),
        [2, 2, 0, 0],
        "there and back, once"
    );
    let failed = &view.targets[&name("eu-west/prod-2")];
    assert_eq!(
        failed
            .failure
            .as_ref()
            .unwrap()
            .step
            .as_ref()
            .unwrap()
            .as_str(),
        "wait_rollout"
    );
}

#[tokio::test]
async fn one_that_crashes_fails_with_the_words_of_its_own_log() {
    let stage = Stage::shared(fleet().await, "crashes-at-once").await;
    stage.release(&[OLD]).await.unwrap();
    stage.publish(&["shop/checkout:v2-crash"]).await.unwrap();
    let words = stage.words("deploy-image", &["image=shop/checkout:v2-crash"]);
    let job = stage.submit(&words).await.unwrap();
    let said = stage
        .aldis(&["watch", &job, "--progress", "plain"])
        .await
        .unwrap()
        .ended(4)
        .unwrap();
    assert!(
        said.out.contains("panic: open /etc/app/config.json"),
        "{said}"
    );
    // Where no look ever meets the word CrashLoopBackOff, by how often it began and how it ended.
    for word in ["wait_rollout", "restarted", "exit code"] {
        assert!(said.out.contains(word), "the verdict names {word}: {said}");
    }
    assert_eq!(
        rests(&stage.view(&job).await.unwrap()),
        ["restored", "untouched", "untouched", "untouched"]
    );
    assert_eq!(stage.images().await.unwrap(), [OLD; 4]);
}

#[tokio::test]
async fn one_that_answers_with_errors_fails_its_verification_and_is_put_back() {
    let stage = Stage::shared(fleet().await, "answers-with-errors").await;
    stage.release(&[OLD]).await.unwrap();
    let file = stage
        .file(
            "deploy.yaml",
            &aldis_tests::runbooks::deploy(
                "deploy-strictly",
                &[("retry: {max: 5, delay: 2s", "retry: {max: 1, delay: 1s")],
            ),
        )
        .unwrap();
    stage.publish(&["shop/checkout:v2-failing"]).await.unwrap();
    let image = "image=shop/checkout:v2-failing";
    let words = stage.words(file.to_str().unwrap(), &[image]);
    let (code, view) = stage.run(&words).await.unwrap();
    assert_eq!(code, 4);
    assert_eq!(
        rests(&view),
        ["restored", "untouched", "untouched", "untouched"]
    );
    let failed = &view.targets[&name("eu-west/prod-1")];
    assert_eq!(
        failed
            .failure
            .as_ref()
            .unwrap()
            .step
            .as_ref()
            .unwrap()
            .as_str(),
        "health"
    );
    assert_eq!(stage.images().await.unwrap(), [OLD; 4]);
}
