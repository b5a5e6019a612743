//! What the ledger is told, attempt by attempt.

use std::sync::{Arc, Mutex};

use byzerllm_core::{
    ChatModel, ChatRequest, EmbeddingInput, EmbeddingModel, EmbeddingRequest, Ending, ErrorKind, Event,
    RequestContext, Task, Usage, UsageHook, UsageSource,
};
use futures::StreamExt;

use crate::mini::{Ledger, MORE, STOP, TEXT, USAGE, ask, open, refusal, request};
use crate::server::{Server, Step, events, reply, stream};

#[tokio::test]
async fn an_attempt_is_reserved_at_its_bound_and_settled_as_reported() {
    let server = Server::start([stream([r#"{"id":"v-1"}"#, TEXT, STOP, USAGE])]).await;
    let model = open(&server.url(), &[]);
    let ledger = Arc::new(Ledger::default());
    let mut request = ChatRequest { n: 1, ..request() };
    request.sampling.max_tokens = Some(7);
    ask(&model, request, ledger.context()).await;
    let attempts = ledger.attempts.lock().unwrap().clone();
    let [attempt] = attempts.as_slice() else { panic!("{attempts:?}") };
    assert_eq!((attempt.vendor, &*attempt.model, &*attempt.deployment), ("mini", "mini-1", "m"));
    assert_eq!((attempt.task, attempt.number, attempt.completion_tokens), (Task::Chat, 1, Some(7)));
    assert_eq!(attempt.prompt_tokens, server.seen()[0].body.len() as u64);
    let settlements = ledger.settlements();
    let [settlement] = settlements.as_slice() else { panic!("{settlements:?}") };
    let usage =
        Usage { prompt_tokens: 3, completion_tokens: 2, source: UsageSource::Reported, ..Usage::default() };
    assert_eq!((&settlement.ending, &settlement.usage), (&Ending::Answered, &Some(usage)));
    assert_eq!(settlement.vendor_request_id.as_deref(), Some("v-1"));
    assert!(settlement.first_event.is_some());
}

#[tokio::test]
async fn an_answer_in_one_piece_is_settled_the_same() {
    let body = format!("[{TEXT},{STOP},{USAGE}]");
    let server = Server::start([reply(200, &[], &body)]).await;
    let ledger = Arc::new(Ledger::default());
    ask(&open(&server.url(), &[]), ChatRequest { whole: true, ..request() }, ledger.context()).await;
    let settlement = ledger.settlements().remove(0);
    assert_eq!(settlement.ending, Ending::Answered);
    assert!(settlement.first_event.is_some() && settlement.usage.is_some());
}

#[tokio::test]
async fn the_deployment_s_bound_is_sent_and_reserved_for_every_choice() {
    let server = Server::start([reply(400, &[], "no"), reply(400, &[], "no")]).await;
    let ledger = Arc::new(Ledger::default());
    let model = open(&server.url(), &[("max_output_tokens", "100")]);
    ask(&model, ChatRequest { n: 3, ..request() }, ledger.context()).await;
    assert!(server.seen()[0].body.contains(r#""max_tokens":100"#), "{:?}", server.seen());
    ask(&open(&server.url(), &[]), request(), ledger.context()).await;
    let bounds: Vec<_> =
        ledger.attempts.lock().unwrap().iter().map(|attempt| attempt.completion_tokens).collect();
    assert_eq!(bounds, [Some(300), None]);
}

#[tokio::test]
async fn what_the_vendor_does_not_report_credibly_is_left_at_the_reservation() {
    let cases: [(&str, Vec<&str>); 4] = [
        ("missing", vec![TEXT, STOP]),
        ("zero", vec![TEXT, STOP, r#"{"usage":[0,0]}"#]),
        ("no text counted", vec![TEXT, STOP, r#"{"usage":[3,0]}"#]),
        ("before the last text", vec![TEXT, r#"{"usage":[3,1]}"#, MORE, STOP]),
    ];
    for (name, data) in cases {
        let server = Server::start([stream(data)]).await;
        let model = open(&server.url(), &[]);
        let ledger = Arc::new(Ledger::default());
        let items = ask(&model, request(), ledger.context()).await;
        let Some(Ok(Event::Usage { usage })) = items.last() else { panic!("{name}: {items:?}") };
        assert_eq!(usage.source, UsageSource::Estimated, "{name}");
        assert!(usage.completion_tokens >= 3 && usage.prompt_tokens > 3, "{name}: bounds");
        let settlement = ledger.settlements().remove(0);
        assert_eq!((settlement.ending, settlement.usage), (Ending::Answered, None), "{name}");
        assert_eq!(model.metrics().unreported, 1, "{name}");
    }
}

#[tokio::test]
async fn every_ending_has_its_word() {
    let error = |status: u16| format!(r#"{{"error":{{"status":{status},"message":"no"}}}}"#);
    let then =
        |data: &[&str], last| events(data.iter().copied()).into_iter().chain([last]).collect::<Vec<_>>();
    let cases: [(&str, Vec<Step>, Ending); 9] = [
        ("bad request", reply(400, &[], ""), Ending::Refused(ErrorKind::InvalidRequest)),
        ("rate", reply(429, &[], ""), Ending::Refused(ErrorKind::RateLimited)),
        ("conflict", reply(409, &[], ""), Ending::Failed(ErrorKind::Conflict)),
        ("ill", reply(500, &[], ""), Ending::Failed(ErrorKind::Upstream)),
        ("closed", vec![Step::Close], Ending::Failed(ErrorKind::Upstream)),
        (
            "refused with status 200",
            stream([error(401).as_str()]),
            Ending::Refused(ErrorKind::Unauthenticated),
        ),
        (
            "refused after text",
            stream([TEXT, error(401).as_str()]),
            Ending::Failed(ErrorKind::Unauthenticated),
        ),
        ("broken off", then(&[TEXT, r#"{"usage":[3,1]}"#], Step::Close), Ending::Failed(ErrorKind::Upstream)),
        ("still", then(&[TEXT], Step::Stall), Ending::Failed(ErrorKind::DeadlineExceeded)),
    ];
    for (name, reply, ending) in cases {
        let server = Server::start([reply]).await;
        let ledger = Arc::new(Ledger::default());
        let model = open(&server.url(), &[("max_retries", "0"), ("idle_timeout", "0.05")]);
        ask(&model, request(), ledger.context()).await;
        let settlements = ledger.settlements();
        let [settlement] = settlements.as_slice() else { panic!("{name}: {settlements:?}") };
        assert_eq!((&settlement.ending, &settlement.usage), (&ending, &None), "{name}");
    }
}

#[tokio::test]
async fn every_retry_is_an_attempt_of_its_own() {
    let server = Server::start([reply(500, &[], ""), reply(429, &[], ""), stream([TEXT, STOP, USAGE])]).await;
    let ledger = Arc::new(Ledger::default());
    ask(&open(&server.url(), &[]), request(), ledger.context()).await;
    let numbers: Vec<_> = ledger.attempts.lock().unwrap().iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(
        ledger.endings(),
        [Ending::Failed(ErrorKind::Upstream), Ending::Refused(ErrorKind::RateLimited), Ending::Answered]
    );
}

#[tokio::test]
async fn a_spent_budget_sends_nothing() {
    let server = Server::start([]).await;
    let model = open(&server.url(), &[]);
    let ledger = Arc::new(Ledger { refuse: Some(ErrorKind::RateLimited), ..Ledger::default() });
    let items = ask(&model, request(), ledger.context()).await;
    assert_eq!(refusal(&items).message(), "the budget is spent");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn whoever_goes_away_leaves_the_reservation_spent_and_is_told_the_usage_once() {
    let server =
        Server::start([events([TEXT]).into_iter().chain([Step::Stall]).collect(), vec![Step::Stall]]).await;
    let model = open(&server.url(), &[]);
    let ledger = Arc::new(Ledger::default());
    let heard: Arc<Mutex<Vec<Usage>>> = Arc::default();
    let shared = Arc::clone(&heard);
    let hook: UsageHook = Arc::new(move |usage| shared.lock().unwrap().push(usage.clone()));
    let context = RequestContext { on_usage: Some(hook), ..ledger.context() };
    let mut stream = model.chat(request(), context).await.unwrap();
    assert!(stream.next().await.is_some());
    drop(stream);
    let settlement = ledger.settlements().remove(0);
    assert_eq!((settlement.ending, settlement.usage), (Ending::Dropped, None));
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].source, UsageSource::Estimated);

    let early = model.chat(request(), ledger.context());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), early).await.is_err());
    assert_eq!(ledger.endings(), [Ending::Dropped, Ending::Dropped]);
}

#[tokio::test]
async fn vectors_are_accounted_batch_by_batch() {
    let one = |tokens: u32| reply(200, &[], &format!(r#"{{"vectors":[[1.0]],"tokens":{tokens}}}"#));
    let two = reply(200, &[], r#"{"vectors":[[1.0],[2.0]],"tokens":5}"#);
    let server = Server::start([two, reply(503, &[], ""), one(0)]).await;
    let ledger = Arc::new(Ledger::default());
    let inputs = vec![EmbeddingInput::Text("a".to_owned()); 3];
    let request = EmbeddingRequest {
        model: "m".to_owned(),
        inputs,
        dimensions: None,
        truncate: false,
        prompt: None,
        extra: Default::default(),
    };
    let embeddings = open(&server.url(), &[]).embed(request, ledger.context()).await.unwrap();
    assert_eq!(embeddings.usage.source, UsageSource::Estimated, "one batch was not reported");
    let attempts: Vec<_> = ledger
        .attempts
        .lock()
        .unwrap()
        .iter()
        .map(|attempt| (attempt.task, attempt.number, attempt.completion_tokens))
        .collect();
    let of = |number| (Task::Embedding, number, Some(0));
    assert_eq!(attempts, [of(1), of(2), of(3)]);
    let settled: Vec<_> =
        ledger.settlements().into_iter().map(|one| (one.ending, one.usage.is_some())).collect();
    let ill = Ending::Failed(ErrorKind::Overloaded);
    assert_eq!(settled, [(Ending::Answered, true), (ill, false), (Ending::Answered, false)]);
}
