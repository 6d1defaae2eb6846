//! One reading of a tag, forth and back.

use clap::Parser;

use super::*;
use crate::arguments::Arguments;

/// Since when a container has been up, where it does not matter.
const UP: Duration = Duration::from_secs(7);

fn behaviour(tag: &str) -> Behaviour {
    *Release::of_tag(tag).behaviour()
}

fn each() -> [(&'static str, Behaviour); 10] {
    let good = Behaviour::GOOD;
    let millis = Duration::from_millis;
    [
        ("", good),
        (
            "slow-300ms",
            Behaviour {
                delay: millis(300),
                ..good
            },
        ),
        (
            "slow-2s",
            Behaviour {
                delay: millis(2000),
                ..good
            },
        ),
        (
            "failing-30pct",
            Behaviour {
                failing: Share::of(30),
                ..good
            },
        ),
        (
            "unready",
            Behaviour {
                probes: Probes::Failing,
                ..good
            },
        ),
        (
            "flapping-2s",
            Behaviour {
                probes: Probes::Flapping(millis(2000)),
                ..good
            },
        ),
        (
            "crash",
            Behaviour {
                crash: Crash::AtStart,
                ..good
            },
        ),
        (
            "crash-after-30s",
            Behaviour {
                crash: Crash::After(millis(30_000)),
                ..good
            },
        ),
        ("leaking-64mib", Behaviour { leak: 64, ..good }),
        (
            "slow-50ms-failing-1pct-leaking-2mib",
            Behaviour {
                delay: millis(50),
                failing: Share::of(1),
                leak: 2,
                ..good
            },
        ),
    ]
}

#[test]
fn every_behaviour_is_written_into_a_tag_and_read_out_of_it() {
    for (words, wanted) in each() {
        assert_eq!(wanted.to_string(), words);
        let release = Release::named("v2.18.0", &wanted);
        assert_eq!(*release.behaviour(), wanted, "{}", release.tag());
        assert!(release.tag().starts_with("v2.18.0"));
    }
}

#[test]
fn the_program_given_a_releases_arguments_is_that_release() {
    for (words, wanted) in each() {
        let release = Release::of_tag(&format!("v1-{words}"));
        let command = std::iter::once("shop".to_owned()).chain(release.arguments());
        let given = Arguments::try_parse_from(command).unwrap_or_else(|e| panic!("{words}: {e}"));
        assert_eq!(given.behaviour(), wanted, "{words}");
        assert_eq!(given.release, release.tag());
    }
}

#[test]
fn a_word_without_a_measure_has_its_usual_one() {
    assert_eq!(behaviour("v2-slow").delay, SLOW);
    assert_eq!(
        behaviour("slow-1").delay,
        SLOW,
        "a number without unit is a name"
    );
    assert_eq!(
        behaviour("slow-5security").delay,
        SLOW,
        "so is a longer word"
    );
    assert_eq!(behaviour("v2.18.0-failing").failing, Share::ALL);
    assert_eq!(behaviour("leaking").leak, LEAK);
    assert_eq!(behaviour("v2-flapping").probes, Probes::Flapping(FLAP));
    assert_eq!(behaviour("v2-crash-after-noon").crash, Crash::AtStart);
}

#[test]
fn only_the_tag_of_an_image_counts() {
    let failing = |image: &str| Release::of_image(image).behaviour().failing;
    assert_eq!(failing("registry.example/failing/app:v1"), Share::NONE);
    assert_eq!(failing("shop/checkout:v2.18.0-failing"), Share::ALL);
    assert_eq!(failing("shop/checkout"), Share::NONE);
    assert_eq!(failing("localhost:5000/failing-app"), Share::NONE);
}

#[test]
fn an_image_that_nobody_makes_cannot_be_pulled() {
    let pulled = |tag: &str| Release::of_tag(tag).can_be_pulled_in("eu-west-prod-1");
    assert!(pulled("v1") && pulled("v1-crash"));
    assert!(!pulled("v3-broken") && !pulled("does-not-exist"));
    assert!(pulled("v2-only-in-eu-west-prod-1"));
    assert!(!pulled("v2-only-in-eu-west-prod-2"));
}

#[test]
fn a_share_takes_exactly_itself_of_any_hundred() {
    for hundredths in 0..=100 {
        let share = Share::of(hundredths);
        for start in [0, 17, 250] {
            let taken = (start..start + 100)
                .filter(|number| share.takes(*number))
                .count();
            assert_eq!(taken as u64, hundredths, "from {start}");
        }
    }
}

#[test]
fn what_keeps_watch_is_told_the_truth_by_a_release_that_fails_its_customers() {
    let (failing, unready) = (behaviour("failing"), behaviour("unready"));
    for path in ["/", "/healthz", "/db"] {
        assert!(failing.fails(path, 0, UP), "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(!failing.fails(path, 0, UP), "{path}");
    }
    let fails = |path: &&str| unready.fails(path, 0, UP);
    let failed: Vec<&str> = ["/", "/livez", "/readyz", "/healthz"]
        .into_iter()
        .filter(fails)
        .collect();
    assert_eq!(failed, ["/readyz", "/healthz"]);
}

#[test]
fn one_that_flaps_is_ready_and_not_in_turn_and_lives_all_the_while() {
    let flapping = behaviour("v2-flapping-2s");
    let ready = |path: &str, millis: &[u64]| -> Vec<bool> {
        let at = |up: &u64| !flapping.fails(path, 0, Duration::from_millis(*up));
        millis.iter().map(at).collect()
    };
    for path in ["/readyz", "/healthz"] {
        let seen = ready(path, &[0, 1_999, 2_000, 3_999, 4_000]);
        assert_eq!(seen, [true, true, false, false, true], "{path}");
    }
    assert_eq!(ready("/livez", &[0, 2_000]), [true, true]);
    assert_eq!(behaviour("unready-flapping").probes, Probes::Failing);
}

#[test]
fn a_time_without_unit_is_refused() {
    assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
    assert!(duration("300").unwrap_err().contains("`300`"));
    assert!(duration("").is_err());
}
