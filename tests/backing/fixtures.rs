//! The fixtures in place of GitHub and Sentry: shut to those without a token, and bad on demand.

use aldis_tests::fleet::services::http::get_tls;
use aldis_tests::fleet::services::{Fault, Fixture, Services};
use aldis_tests::requests::Answer;
use http::StatusCode;

use crate::{folder, only, services};

const RELEASES: &str = "/repos/acme/shop/releases/latest";
const ISSUES: &str = "/api/0/organizations/acme/issues/?query=release:v1.42.0";

async fn ask(services: &Services, fixture: &Fixture, path: &str, token: Option<&str>) -> Answer {
    get_tls(fixture.port(), path, services.ca(), token)
        .await
        .unwrap()
}

#[tokio::test]
async fn without_the_token_neither_says_a_thing() {
    let services = services().await;
    for (fixture, path, key) in [
        (services.github().unwrap(), RELEASES, "message"),
        (services.sentry().unwrap(), ISSUES, "detail"),
    ] {
        for token in [None, Some("guessed")] {
            let answer = ask(services, fixture, path, token).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            let document = answer.json().unwrap();
            let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
            assert!(keys.contains(&&key.to_owned()), "{document}");
            assert!(!document.to_string().contains("v1.42.0"), "{document}");
        }
    }
}

#[tokio::test]
async fn with_the_token_each_answers_in_the_shape_of_its_service_and_says_that_it_is_a_fixture() {
    let services = services().await;
    let github = services.github().unwrap();
    let answer = ask(services, github, RELEASES, Some(github.token().expose())).await;
    assert_eq!(answer.json().unwrap()["tag_name"], "v1.42.0");
    assert_eq!(answer.headers["server"], "github-fixture");

    let sentry = services.sentry().unwrap();
    let answer = ask(services, sentry, ISSUES, Some(sentry.token().expose())).await;
    assert_eq!(answer.json().unwrap()[0]["shortId"], "SHOP-7Q");
    assert_eq!(answer.headers["server"], "sentry-fixture");
}

/// With fixtures of its own: the others would meet its faults.
#[tokio::test]
async fn each_fails_as_it_is_told_until_it_is_healed() {
    use aldis_tests::fleet::services::Service;
    let folder = aldis_tests::fleet::folder::Folder::make(&folder("backing-faults")).unwrap();
    let options = only([Service::Github, Service::Sentry]);
    let services = Services::start(&folder, options).await.unwrap();
    for (fixture, path) in [
        (services.github().unwrap(), RELEASES),
        (services.sentry().unwrap(), ISSUES),
    ] {
        let token = Some(fixture.token().expose());
        for (fault, status) in [
            (Fault::Forbidden, StatusCode::FORBIDDEN),
            (
                Fault::TooMany { retry_after_s: 7 },
                StatusCode::TOO_MANY_REQUESTS,
            ),
            (
                Fault::Broken(StatusCode::BAD_GATEWAY),
                StatusCode::BAD_GATEWAY,
            ),
        ] {
            fixture.fail(Some(fault));
            let answer = ask(&services, fixture, path, token).await;
            assert_eq!(answer.status, status);
            let wait = answer.headers.get("retry-after");
            let wait = wait.and_then(|value| value.to_str().ok());
            let asked_to_wait = matches!(fault, Fault::TooMany { .. });
            assert_eq!(wait, asked_to_wait.then_some("7"));
        }
        fixture.fail(None);
        let answer = ask(&services, fixture, path, token).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(fixture.asked().len(), 4);
    }
}
