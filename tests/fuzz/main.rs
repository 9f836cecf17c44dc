//! Random tests of everything that reads foreign bytes: mutations of the corpora in `fuzz/corpus/`,
//! by a seed. libFuzzer runs the same targets (`fuzz/fuzz_targets/`).
//!
//! Each input is checked by its target; its memory and its processor time are measured. Inputs are
//! also enlarged, to find work that grows faster than its input.
//!
//! | variable | effect |
//! |---|---|
//! | `TICKCAST_FUZZ_SEED` | seed of a run, which a failure prints; default 1, with `./check --full` a random one |
//! | `TICKCAST_FUZZ_SECONDS` | processor time of a target; default 2, with `./check --full` 20 |

mod cases;
mod corpus;
mod harness;
mod measure;

use harness::Target;

/// Runs a target for its processor time.
fn fuzz(target: &Target) {
    let corpus = corpus::of(target.name);
    cases::seeds(target, &corpus);
    cases::random(target, &corpus);
}

#[test]
fn requests_are_decoded_in_bounded_memory_and_both_encodings_agree() {
    fuzz(&harness::request::TARGET);
}

#[test]
fn frames_are_read_alike_however_they_are_cut() {
    fuzz(&harness::frames::TARGET);
}

#[test]
fn both_decoders_of_server_messages_agree() {
    fuzz(&harness::server_message::TARGET);
}

#[test]
fn the_scanner_finds_the_same_messages_however_they_are_cut() {
    fuzz(&harness::scan::TARGET);
}

#[test]
fn configs_are_accepted_or_rejected_with_bounded_problems() {
    fuzz(&harness::config::TARGET);
}

#[test]
fn texts_of_values_are_written_as_they_are_read() {
    fuzz(&harness::values::TARGET);
}

#[test]
fn published_records_are_the_same_in_both_encodings() {
    fuzz(&harness::publish::TARGET);
}

#[test]
fn recordings_account_for_every_row_in_constant_memory() {
    fuzz(&harness::recording::TARGET);
}

#[test]
fn checkpoints_are_stored_as_they_were_read_and_damaged_ones_refused() {
    fuzz(&harness::checkpoint::TARGET);
}

#[test]
fn records_of_the_log_are_read_as_written_and_damaged_ones_refused() {
    fuzz(&harness::record::TARGET);
}

#[test]
fn states_are_read_as_written_and_damaged_ones_rejected() {
    fuzz(&harness::state::TARGET);
}

#[test]
fn queries_hosts_and_addresses_are_bounded_and_read_as_written() {
    fuzz(&harness::web::TARGET);
}

#[test]
fn derived_events_are_consistent_for_extreme_values() {
    fuzz(&harness::derive::TARGET);
}

#[test]
fn sessions_act_on_subscribed_topics_only_in_linear_time() {
    fuzz(&harness::session::TARGET);
}

#[test]
fn only_the_right_key_and_signed_tokens_with_valid_claims_are_accepted() {
    fuzz(&harness::tokens::TARGET);
}
