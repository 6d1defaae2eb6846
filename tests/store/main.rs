//! One suite of what the store, leadership and the view promise, on both adapters, and what only a
//! real etcd can do to us.
//!
//! | file | what |
//! |---|---|
//! | `suite.rs` | the laws of the store |
//! | `terms.rs` | elections, fences, the incarnation |
//! | `views.rs` | what a view shows, and how fresh it says it is |
//! | `faults.rs` | etcd frozen, killed, restored, behind TLS |
//! | `file.rs` | the embedded store's file and clock |

mod bench;
mod faults;
mod file;
mod suite;
mod terms;
mod views;

/// Each case on each adapter, as a test of its own.
macro_rules! on_both {
    ($($module:ident: $($case:ident),+;)+) => {
        mod embedded {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                crate::$module::$case(&crate::bench::Bench::embedded()?).await
            })+)+
        }
        mod etcd {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                crate::$module::$case(&crate::bench::Bench::etcd().await?).await
            })+)+
        }
    };
}

on_both! {
    suite:
        a_record_is_created_changed_and_deleted_by_compare,
        a_conflict_writes_nothing,
        revisions_rise_by_one_with_each_transaction_that_writes,
        a_group_outlives_one_conflict,
        a_failed_fence_stops_a_whole_group,
        a_group_acts_as_if_one_after_the_other,
        a_group_may_be_larger_than_a_transaction,
        what_is_too_large_is_refused,
        a_listing_pages_at_one_revision,
        pages_follow_each_other_to_the_end_of_a_prefix,
        a_watch_resumes_from_a_revision,
        progress_comes_after_all_that_happened,
        a_silent_watch_lives,
        a_compacted_watch_is_reset,
        the_end_of_a_lease_deletes_its_keys,
        a_lease_kept_alive_goes_on,
        a_revoked_lease_takes_its_keys_and_no_others,
        a_lost_reply_is_unknown_either_way;
    terms:
        of_two_candidates_one_wins,
        a_leader_that_steps_down_is_followed,
        a_deposed_leader_writes_nothing,
        a_revoked_lease_ends_a_term,
        a_term_won_by_a_lost_reply_is_noticed,
        raising_the_incarnation_deposes_the_leader,
        a_store_of_a_later_build_is_led_by_nobody;
    views:
        a_view_follows_and_proves_itself,
        a_view_survives_compaction;
}
