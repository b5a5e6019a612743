//! What a vendor may answer: anything. The function takes any bytes, asserts what must hold of the events read from
//! them, and returns how much memory reading may have held at once.
//!
//! The fuzz targets call it, and so do the tests below with every file of `fuzz/corpus` and with changed copies of it.
#![expect(clippy::panic, reason = "a broken promise ends the process that looks for it")]

use std::sync::{Arc, LazyLock};

use byzerllm_client::sse::Parser;
use byzerllm_core::testing::Checked;
use byzerllm_core::{ChatRequest, Error, ErrorKind, Event, Input, Message, RequestId, Result, Role, Usage};
use futures::{FutureExt, StreamExt, stream};
use http::HeaderMap;

use crate::answer::decode;
use crate::assembly::Assembly;
use crate::transport::{MAX_EVENT, beginning};
use crate::{Delta, Dialect, Frame, Parameters, find};

/// No error tells more than this of what a vendor said.
const LONGEST_ERROR: usize = 16 << 10;

/// One deployment of each translation; `fuzz/make_seeds.py` knows them by place.
const DEPLOYMENTS: [(&str, &[(&str, &str)]); 17] = [
    ("openai", &[("api_key", "k"), ("model", "m")]),
    ("azure_openai", &[("api_key", "k"), ("base_url", "https://a.example"), ("azure_deployment", "m")]),
    ("baichuan", &[("api_key", "k"), ("model", "m")]),
    ("deepseek", &[("api_key", "k"), ("model", "m")]),
    ("moonshot", &[("api_key", "k"), ("model", "m")]),
    ("siliconflow", &[("api_key", "k"), ("model", "m")]),
    ("volcengine", &[("api_key", "k"), ("model", "m")]),
    ("zhipu", &[("api_key", "k")]),
    ("claude", &[("api_key", "k")]),
    ("gemini", &[("api_key", "k")]),
    ("minimax", &[("api_key", "k"), ("group_id", "1")]),
    (
        "minimax",
        &[
            ("api_key", "k"),
            ("model", "MiniMax-M1"),
            ("api_url", "https://api.minimaxi.com/v1/text/chatcompletion_v2"),
        ],
    ),
    ("qianfan", &[("api_key", "k"), ("secret_key", "s"), ("model", "ERNIE-4.0-8K")]),
    ("qianfan", &[("api_key", "bce-v3/ALTAK/x"), ("model", "ernie-4.0-8k")]),
    ("qianwen", &[("api_key", "k")]),
    ("qianwen_vl", &[("api_key", "k")]),
    ("sparkdesk", &[("appid", "1"), ("api_key", "k"), ("api_secret", "s")]),
];

static DIALECTS: LazyLock<Vec<Arc<dyn Dialect>>> = LazyLock::new(|| {
    let open = |(name, given): &(&str, &[(&str, &str)])| {
        let vendor = find(name)?;
        (vendor.open)(&Parameters::new(vendor, given.iter().copied())?)
    };
    match DEPLOYMENTS.iter().map(open).collect() {
        Ok(all) => all,
        Err(error) => panic!("{error}"),
    }
});

/// An answer: the first byte says of which deployment; the second whether it was asked for in one piece (1), whether
/// pieces are cumulative where the vendor knows that (2), whether there are two choices (4), or whether it is an error
/// (8) or a list of vectors (16); the third how the body is cut on its way. The rest is the body.
pub fn vendor_answer(bytes: &[u8]) -> usize {
    let most = (1 << 20) + 256 * bytes.len();
    let [place, how, seed, body @ ..] = bytes else { return most };
    let place = usize::from(*place) % DEPLOYMENTS.len();
    let dialect = &*DIALECTS[place];
    if how & 8 != 0 {
        let status = [200, 400, 401, 429, 500, 529][usize::from(*seed) % 6];
        told(&dialect.error(status, &HeaderMap::new(), body));
        return most;
    }
    if how & 16 != 0 {
        // Dialects without vectors say so; none of them breaks.
        if let Ok(embeddings) = dialect.embedded(body) {
            assert!(embeddings.vectors.iter().all(|vector| !vector.is_empty()), "an empty vector");
        }
        return most;
    }
    let mut request = ChatRequest::new("m", Input::Messages(vec![Message::new(Role::User, "hi")]));
    request.whole = how & 1 != 0;
    request.n = if how & 4 != 0 { 2 } else { 1 };
    request.sampling.stop = Some(vec!["END".to_owned()]);
    if how & 2 != 0 {
        request.extra.insert("incremental_output".to_owned(), false.into());
    }
    let lines = DEPLOYMENTS[place].0 == "sparkdesk";
    let whole = read(dialect, &request, lines, [body]);
    if !request.whole && !lines {
        let cut = read(dialect, &request, lines, pieces(body, *seed));
        assert_eq!(cut.0, whole.0, "cut on its way");
        assert_eq!(cut.1.is_ok(), whole.1.is_ok(), "cut on its way");
    }
    contract(whole, request.n);
    most
}

/// An answer as it comes off the wire: the first byte says how its body is cut on its way. What is left out of a head makes it
/// no other one, and no way of cutting a body changes it.
pub fn vendor_http(bytes: &[u8]) -> usize {
    let most = (1 << 20) + 256 * bytes.len();
    let [seed, wire @ ..] = bytes else { return most };
    let mut wire = wire;
    // What comes before the answer itself is read over.
    while let Ok(Some(found)) = beginning(wire) {
        let (head, after) = wire.split_at(found.length);
        for end in (0..head.len()).rev().take(64) {
            assert!(
                matches!(beginning(&head[..end]), Ok(None)),
                "a head of {} bytes ends at {end}",
                head.len()
            );
        }
        if (100..200).contains(&found.status) {
            wire = after;
            continue;
        }
        let (mut rest, mut whole) = (found.rest, Vec::new());
        let taken = rest.take(after, &mut whole);
        let Ok(Some(found)) = beginning(wire) else { panic!("a head that is one only once") };
        let (mut cut, mut body, mut sum, mut outcome) = (found.rest, Vec::new(), 0, Ok(()));
        for piece in pieces(after, *seed) {
            match cut.take(piece, &mut body) {
                Ok(taken) => sum += taken,
                Err(odd) => outcome = Err(odd),
            }
            if outcome.is_err() || cut.is_over() {
                break;
            }
        }
        assert_eq!(outcome.is_ok(), taken.is_ok(), "cut on its way");
        if let Ok(taken) = taken {
            assert_eq!((sum, &body, cut.is_over()), (taken, &whole, rest.is_over()), "cut on its way");
            assert!(taken <= after.len() && whole.len() <= taken, "more than came");
        }
        return most;
    }
    most
}

/// An error that people see is short and of a kind that a vendor can cause.
fn told(error: &Error) {
    assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(error.message().len() <= LONGEST_ERROR, "{} bytes of message", error.message().len());
}

type Came = (Vec<Event>, Result<()>);

/// Reads a body as [`crate::ProviderModel`] does.
fn read<'a>(
    dialect: &dyn Dialect,
    request: &ChatRequest,
    lines: bool,
    body: impl IntoIterator<Item = &'a [u8]>,
) -> Came {
    let mut decoder = dialect.decoder(request);
    let mut assembly = Assembly::new("fuzz", request.n);
    let mut deltas: Vec<Delta> = Vec::new();
    let mut parser = Parser::new(MAX_EVENT);
    let mut take = |frame: Frame<'_>| decode(frame, &mut *decoder, &mut deltas, &mut assembly);
    let mut outcome = Ok(());
    for piece in body {
        outcome = if lines || request.whole {
            let text = String::from_utf8_lossy(piece);
            let frames: Vec<&str> = if lines { text.lines().collect() } else { vec![&*text] };
            frames.into_iter().try_for_each(|data| take(Frame { event: "", id: "", data }))
        } else {
            parser
                .push(piece, &mut |frame| take(Frame { event: frame.event, id: frame.id, data: frame.data }))
        };
        if outcome.is_err() {
            break;
        }
    }
    if outcome.is_ok() && !lines && !request.whole {
        outcome =
            parser.finish(&mut |frame| take(Frame { event: frame.event, id: frame.id, data: frame.data }));
    }
    let finished = assembly.is_finished();
    let events = assembly.ready.into_iter().collect();
    let early = || Error::new(ErrorKind::Upstream, "ended early");
    (events, outcome.and_then(|()| if finished { Ok(()) } else { Err(early()) }))
}

/// The events keep the contract of streams, whatever came.
fn contract((events, outcome): Came, choices: u32) {
    let started = Event::Started { request_id: RequestId("fuzz".to_owned()), vendor_request_id: None };
    let last = match outcome {
        Ok(()) => Ok(Event::Usage { usage: Usage::default() }),
        Err(error) => {
            told(&error);
            Err(error.with_usage(Usage::default()))
        }
    };
    let items = std::iter::once(started).chain(events).map(Ok).chain([last]);
    let checked = Checked::new(stream::iter(items).boxed(), choices);
    // Nothing in it waits.
    for item in checked.collect::<Vec<_>>().now_or_never().unwrap_or_default() {
        if let Err(error) = item {
            assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
        }
    }
}

/// A body in pieces of up to sixteen bytes.
fn pieces(body: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (body, u32::from(seed));
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, after) = rest.split_at(rest.len().min((state >> 28) as usize + 1));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{vendor_answer, vendor_http};

    #[test]
    fn corpus_of_vendor_answers() {
        super::replay::replay("vendor_answer", vendor_answer);
    }

    #[test]
    fn corpus_of_vendor_http() {
        super::replay::replay("vendor_http", vendor_http);
    }

    /// Numbers that are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % end.max(1) as u64).unwrap()
        }
    }

    /// What a body may become on its way: bits turn, pieces vanish, come twice, or come from elsewhere.
    fn changed(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
        const WORDS: [&[u8]; 10] =
            [b"\n\n", b"data: ", b"null", b"{}", b"[]", b"-1", b"1e400", b"\"\"", b"\xff", b"\\ud800"];
        let mut out = bytes.to_vec();
        for _ in 0..=dice.below(3) {
            let at = 3 + dice.below(out.len().saturating_sub(3));
            let end = (at + dice.below(24)).min(out.len());
            let at = at.min(end);
            match dice.below(6) {
                0 if at < out.len() => out[at] ^= 1 << dice.below(8),
                1 => drop(out.drain(at..end)),
                2 => {
                    let copy = out[at..end].to_vec();
                    out.splice(at..at, copy);
                }
                3 => drop(out.splice(at..end, WORDS[dice.below(WORDS.len())].iter().copied())),
                4 => {
                    let from = dice.below(other.len());
                    let to = (from + dice.below(200)).min(other.len());
                    out.splice(at..at, other[from..to].iter().copied());
                }
                _ => out[1] ^= 1 << dice.below(5),
            }
        }
        out
    }

    /// What the files of a target's corpus hold.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        super::replay::files(target).iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn changed_answers_keep_the_contract() {
        let seeds = seeds("vendor_answer");
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for seed in seeds.iter().filter(|seed| seed.len() > 3) {
            for _ in 0..60 {
                let other = &seeds[dice.below(seeds.len())];
                vendor_answer(&changed(seed, other, &mut dice));
            }
        }
    }

    #[test]
    fn changed_http_is_read_alike_however_it_is_cut() {
        let seeds = seeds("vendor_http");
        let mut dice = Dice(0x5851_f42d_4c95_7f2d);
        for seed in &seeds {
            for _ in 0..500 {
                let other = &seeds[dice.below(seeds.len())];
                vendor_http(&changed(seed, other, &mut dice));
            }
        }
    }
}
