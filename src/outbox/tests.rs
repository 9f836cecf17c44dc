//! The outbox against a client that counts from the wire alone, under random operations.

mod cases;
mod rig;
mod source_gaps;
mod steps;
mod truth;
mod work;

use proptest::prelude::*;

use crate::protocol::Encoding;
use rig::Rig;
use steps::step;

/// Many more in `./check --full`, or as `PROPTEST_CASES` says.
fn cases() -> u32 {
    let many = std::env::var("TICKCAST_FULL").as_deref() == Ok("1");
    let wanted = std::env::var("PROPTEST_CASES").ok();
    let wanted = wanted.and_then(|cases| cases.parse().ok());
    wanted.unwrap_or(if many { 20_000 } else { 400 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_counts_from_the_wire_alone_agrees(
        steps in proptest::collection::vec(step(), 1..120),
        json in any::<bool>(),
    ) {
        let mut rig = Rig::new(if json { Encoding::Json } else { Encoding::Msgpack });
        for (at, step) in steps.iter().enumerate() {
            rig.run(step);
            prop_assert_eq!(&rig.failed, &None, "after step {} ({:?})", at, step);
        }
        rig.settle();
        prop_assert_eq!(&rig.failed, &None, "when all was out");
    }
}
