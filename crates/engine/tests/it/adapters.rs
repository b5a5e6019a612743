//! Adapters of a tiny real network: a stream does not depend on the adapters beside it, its blocks are its own, and
//! adapters come and go while streams run.

use std::sync::Arc;

use byzerllm_core::{ChatModel, ErrorKind, Input, RequestContext, Sampling, collect};
use byzerllm_engine::{LocalModel, TokenRequest};
use byzerllm_kernels::ComputePool;
use byzerllm_model::{Adapter, Checkpoint, Compute};
use futures::StreamExt;
use futures::future::join_all;

use crate::fake::Shape;
use crate::real::{fixtures, pool, sampling, start};
use crate::text::{ask, block_on, greedy, until};

const NAMES: [&str; 3] = ["patterns", "stable", "head"];

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&fixtures().join("qwen2-bf16")).unwrap()
}

fn adapter(checkpoint: &Checkpoint, pool: &ComputePool, name: &str) -> Adapter {
    checkpoint.adapter(&fixtures().join("adapters").join(name), pool).unwrap()
}

/// A model with all adapters.
async fn model(compute: Compute, contexts: f64) -> LocalModel {
    let (checkpoint, pool) = (checkpoint(), pool());
    let model = start(&checkpoint, &pool, compute, contexts);
    for name in NAMES {
        model.load_adapter(name, adapter(&checkpoint, &pool, name)).unwrap();
    }
    model
}

fn request(prompt: &[u32], sampling: Sampling, adapter: Option<&str>) -> TokenRequest {
    let adapter = adapter.map(str::to_owned);
    TokenRequest { prompt: prompt.to_vec(), sampling, ignore_end: true, adapter, ..TokenRequest::default() }
}

async fn ids(model: &LocalModel, prompt: &[u32], sampling: Sampling, adapter: Option<&str>) -> Vec<u32> {
    model.token_stream(request(prompt, sampling, adapter)).unwrap().map(|id| id.unwrap()).collect().await
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|place| 3 + place * 7 % 290).collect()
}

#[test]
fn streams_of_several_adapters_are_those_of_each_alone() {
    let long = prompt(40);
    let prompts = [&long[..], &long[..7], &long[..]];
    let adapters = [None, Some("patterns"), Some("stable"), Some("head")];
    let mut preemptions = 0;
    for compute in Compute::ALL {
        block_on(async {
            let crowded = model(compute, 1.2).await;
            let roomy = model(compute, 8.0).await;
            let runs = prompts.iter().flat_map(|prompt| {
                let each = |adapter| ids(&crowded, prompt, sampling(0.7, 30), adapter);
                adapters.map(each)
            });
            let together = join_all(runs).await;
            for (place, found) in together.iter().enumerate() {
                let (prompt, adapter) = (prompts[place / 4], adapters[place % 4]);
                let alone = ids(&roomy, prompt, sampling(0.7, 30), adapter).await;
                assert_eq!(*found, alone, "{compute} {adapter:?}");
            }
            let distinct: std::collections::HashSet<_> = together[..4].iter().collect();
            assert_eq!(distinct.len(), 4, "every adapter says something else");
            preemptions += crowded.metrics().preemptions;
        });
    }
    assert!(preemptions > 0, "the cache was large enough for all");
}

#[test]
fn a_cached_block_belongs_to_its_adapter() {
    block_on(async {
        let model = model(Compute::Exact, 8.0).await;
        let prompt = prompt(41);
        let mut cached = Vec::new();
        let asked = [None, Some("patterns"), Some("stable"), None, Some("patterns"), Some("stable")];
        for adapter in asked {
            let mut asked = greedy(Input::Tokens(prompt.clone()), 2);
            asked.model = adapter.map_or("real".to_owned(), |name| format!("real:{name}"));
            cached.push(ask(&model, asked).await.usage.cached_tokens);
        }
        assert_eq!(cached, [0, 0, 0, 40, 40, 40]);
        // The same files under the same name are another adapter once more.
        let (checkpoint, pool) = (checkpoint(), pool());
        model.unload_adapter("patterns").await.unwrap();
        model.load_adapter("patterns", adapter(&checkpoint, &pool, "patterns")).unwrap();
        let mut asked = greedy(Input::Tokens(prompt), 2);
        asked.model = "real:patterns".to_owned();
        assert_eq!(ask(&model, asked).await.usage.cached_tokens, 0);
    });
}

#[test]
fn unloading_lets_requests_finish_and_refuses_new_ones() {
    block_on(async {
        let model = Arc::new(model(Compute::Exact, 8.0).await);
        let prompt = prompt(7);
        let whole = ids(&model, &prompt, sampling(0.0, 80), Some("stable")).await;
        // Others make its steps slow enough that it still runs when it is looked at.
        let beside = || model.token_stream(request(&prompt, sampling(0.0, 85), None)).unwrap();
        let _beside: Vec<_> = (0..6).map(|_| beside()).collect();
        let mut running = model.token_stream(request(&prompt, sampling(0.0, 80), Some("stable"))).unwrap();
        let first = running.next().await.unwrap().unwrap();
        assert_eq!(model.adapters().iter().map(|adapter| adapter.active).collect::<Vec<_>>(), [0, 0, 1]);
        let unloading = {
            let model = Arc::clone(&model);
            tokio::spawn(async move { model.unload_adapter("stable").await })
        };
        until("the name is gone", || model.adapters().len() == 2).await;
        let refused = model.token_stream(request(&prompt, sampling(0.0, 2), Some("stable"))).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert!(refused.to_string().contains("head, patterns"), "{refused}");
        // The others go on meanwhile.
        assert_eq!(ids(&model, &prompt, sampling(0.0, 5), Some("head")).await.len(), 5);
        let mut found = vec![first];
        while let Some(id) = running.next().await {
            found.push(id.unwrap());
        }
        assert_eq!(found, whole, "it ran to its end with its adapter");
        unloading.await.unwrap().unwrap();
        assert_eq!(model.unload_adapter("stable").await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_request_that_is_dropped_lets_its_adapter_go() {
    block_on(async {
        let model = model(Compute::Exact, 8.0).await;
        let mut stream = model.token_stream(request(&prompt(7), sampling(0.0, 80), Some("head"))).unwrap();
        stream.next().await.unwrap().unwrap();
        drop(stream);
        model.unload_adapter("head").await.unwrap();
        assert_eq!(model.adapters().len(), 2);
    });
}

#[test]
fn adapters_come_and_go_under_load() {
    block_on(async {
        let (checkpoint, pool) = (checkpoint(), pool());
        let model = Arc::new(start(&checkpoint, &pool, Compute::Standard, 4.0));
        let prompt = prompt(12);
        model.load_adapter("first", adapter(&checkpoint, &pool, "stable")).unwrap();
        let plain = ids(&model, &prompt, sampling(0.0, 60), None).await;
        let first = ids(&model, &prompt, sampling(0.0, 60), Some("first")).await;
        let streams = join_all((0..6).map(|place| {
            let adapter = (place % 2 == 0).then_some("first");
            ids(&model, &prompt, sampling(0.0, 60), adapter)
        }));
        let changes = async {
            for round in 0..8 {
                let name = format!("round-{round}");
                let file = NAMES[round % NAMES.len()];
                model.load_adapter(&name, adapter(&checkpoint, &pool, file)).unwrap();
                assert_eq!(ids(&model, &prompt, sampling(0.0, 3), Some(&name)).await.len(), 3);
                model.unload_adapter(&name).await.unwrap();
            }
        };
        let (streams, ()) = tokio::join!(streams, changes);
        for (place, found) in streams.iter().enumerate() {
            assert_eq!(*found, if place % 2 == 0 { &first[..] } else { &plain[..] }, "stream {place}");
        }
        assert_eq!(model.adapters().len(), 1);
    });
}

#[test]
fn names_that_are_wrong_or_taken_are_refused() {
    block_on(async {
        let (checkpoint, pool) = (checkpoint(), pool());
        let model = model(Compute::Exact, 8.0).await;
        let mut asked = greedy(Input::Tokens(prompt(5)), 2);
        asked.model = "real:pattern".to_owned();
        let error = model.chat(asked, RequestContext::local()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("did you mean 'patterns'"), "{error}");
        let error = model.load_adapter("head", adapter(&checkpoint, &pool, "head")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        // A network that has no adapters.
        let (fake, _) = crate::text::model(&Shape::default(), 100, |_| {});
        let error = fake.load_adapter("head", adapter(&checkpoint, &pool, "head")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(fake.adapters().is_empty());
        collect(fake.chat(greedy(Input::Tokens(vec![65]), 2), RequestContext::local()).await.unwrap())
            .await
            .unwrap();
    });
}
