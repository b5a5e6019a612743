//! However an answer is cut on the way, the same events come out.

use byzerllm_simulator::{Finish, Script};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::world::{CASES, World, question};

/// Pieces with characters of all lengths, line ends, quotes, and what looks like the protocol.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z ]{0,8}",
        "[你好世界🌍👩‍🚀é]{1,5}",
        Just("\n\ndata: [DONE]\n\n".to_owned()),
        Just("\"}\r\n\\u0000".to_owned()),
        Just("event: error\u{2028}".to_owned()),
    ]
}

#[test]
fn random_texts_in_random_pieces_arrive_as_they_are() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (number, case) in CASES.iter().enumerate() {
        let world = World::new(case, &[]);
        let seed = [u8::try_from(number).unwrap(); 32];
        let mut runner = TestRunner::new_with_rng(
            Config { cases: 12, failure_persistence: None, ..Config::default() },
            TestRng::from_seed(RngAlgorithm::ChaCha, &seed),
        );
        let faults = prop_oneof![Just("split"), Just("split-characters"), Just("merged"), Just("no-usage")];
        let strategy = (prop::collection::vec(piece(), 1..12), faults, any::<bool>());
        let result = runner.run(&strategy, |(text, fault, length)| {
            let expected = text.concat();
            prop_assume!(!expected.is_empty());
            let finish = length.then_some(Finish::Length);
            world.vendor.script(Script { finish, ..Script::text(text) });
            world.vendor.fault(fault.parse().unwrap());
            let came = runtime.block_on(world.ask(question("hi", false)));
            prop_assert!(came.error.is_none(), "{}: {:?}", case.title, came.error);
            prop_assert_eq!(came.text, expected, "{}", case.title);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", case.title));
    }
}
