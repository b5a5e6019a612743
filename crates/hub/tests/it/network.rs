//! What networks and servers do to downloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use byzerllm_hub::Problem;

use crate::server::{Response, Server};
use crate::world::{World, content, files, honest, hugging_face, sha256};

/// A server with one file, whose answers the test changes.
fn one_file(bytes: Vec<u8>, change: impl Fn(usize, Response) -> Response + Send + Sync + 'static) -> Server {
    let number = AtomicUsize::new(0);
    Server::start(move |request| {
        change(number.fetch_add(1, Ordering::SeqCst), Response::file(request, &bytes))
    })
}

fn address(server: &Server, sum: &str) -> String {
    format!("{}/m.gguf#sha256={sum}", server.url)
}

#[tokio::test]
async fn a_dropped_connection_goes_on_where_it_broke() {
    let bytes = content(10_000);
    let sum = sha256(&bytes);
    // Every answer but the first stops half way; each brings at least some bytes.
    let server = one_file(bytes.clone(), |number, response| {
        let half = response.body.len().div_ceil(2);
        Response { cut: (number > 0).then_some(half), ..response }
    });
    let world = World::new(&server.url);
    let pulled = world.pull(&address(&server, &sum)).await.unwrap();
    assert_eq!(std::fs::read(&pulled.path).unwrap(), bytes);
    let mut starts: Vec<usize> =
        server.log().iter().skip(1).filter_map(|request| request.range().map(|range| range.0)).collect();
    let asked = starts.len();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), asked, "no byte is asked for twice");
}

#[tokio::test]
async fn another_run_goes_on_with_what_is_complete() {
    let bytes = content(10_000);
    let sum = sha256(&bytes);
    let served = bytes.clone();
    let healthy = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&healthy);
    let server = Server::start(move |request| {
        let late = request.range().is_some_and(|(first, _)| first >= 5000);
        if late && switch.load(Ordering::SeqCst) == 0 {
            Response::new(500)
        } else {
            Response::file(request, &served)
        }
    });
    let mut world = World::new(&server.url);
    world.settings.connections = 1;
    let Err(problem) = world.pull(&address(&server, &sum)).await else { panic!("the server fails") };
    assert!(matches!(&problem, Problem::Network { why, .. } if why.contains("tried 6 times")), "{problem}");
    assert!(world.names("blobs").is_empty() && !world.cache().join("models").exists());
    healthy.store(1, Ordering::SeqCst);
    let before = server.log().len();
    let pulled = world.pull(&address(&server, &sum)).await.unwrap();
    assert_eq!(std::fs::read(&pulled.path).unwrap(), bytes);
    let again: Vec<_> = server.log()[before + 1..].iter().filter_map(crate::server::Request::range).collect();
    assert!(again.iter().all(|range| range.0 >= 5000), "{again:?}");
}

#[tokio::test]
async fn a_wrong_hash_deletes_the_download() {
    let server = one_file(content(3000), |_, response| response);
    let world = World::new(&server.url);
    let expected = "ab".repeat(32);
    let Err(problem) = world.pull(&address(&server, &expected)).await else { panic!("wrong") };
    let Problem::Checksum { found, .. } = &problem else { panic!("{problem}") };
    assert_eq!(*found, sha256(&content(3000)));
    assert!(problem.to_string().contains(&expected) && problem.to_string().contains("deleted"));
    assert!(world.names("blobs").is_empty());
    assert!(
        !world.names("downloads").iter().any(|name| name.ends_with(".part")),
        "{:?}",
        world.names("downloads")
    );
}

#[tokio::test]
async fn a_small_file_is_checked_by_gits_sum() {
    let files = files();
    let server = Server::start(move |request| {
        let mut response = hugging_face(request, &files);
        if request.target.ends_with("config.json") {
            response.body[2] ^= 1;
        }
        response
    });
    let world = World::new(&server.url);
    let Err(problem) = world.pull("org/name").await else { panic!("wrong") };
    assert!(matches!(&problem, Problem::Checksum { file, .. } if file == "config.json"), "{problem}");
    assert!(!world.cache().join("models").exists(), "half a model has no name");
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    let bytes = content(500);
    let sum = sha256(&bytes);
    let server = one_file(bytes, |number, response| match number {
        0 => Response::new(429).with("Retry-After", "1"),
        1 => Response::new(503),
        _ => response,
    });
    let world = World::new(&server.url);
    let started = Instant::now();
    world.pull(&address(&server, &sum)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn servers_without_ranges_or_lengths_work_too() {
    let bytes = content(5000);
    let sum = sha256(&bytes);
    for no_length in [false, true] {
        let served = bytes.clone();
        let server =
            Server::start(move |_| Response { body: served.clone(), no_length, ..Response::new(200) });
        let world = World::new(&server.url);
        let pulled = world.pull(&address(&server, &sum)).await.unwrap();
        assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
    }
    // A hub that promises sizes and ignores ranges.
    let files = files();
    let server = Server::start(move |request| {
        let mut plain = request.clone();
        plain.headers.remove("range");
        hugging_face(&plain, &files)
    });
    World::new(&server.url).pull("org/name").await.unwrap();
}

#[tokio::test]
async fn a_truncated_body_is_never_a_model() {
    let bytes = content(5000);
    let sum = sha256(&bytes);
    // No length, no ranges, and the connection ends too early each time: only the checksum can tell.
    let served = bytes[..4000].to_vec();
    let server =
        Server::start(move |_| Response { body: served.clone(), no_length: true, ..Response::new(200) });
    let world = World::new(&server.url);
    let Err(problem) = world.pull(&address(&server, &sum)).await else { panic!("truncated") };
    assert!(matches!(problem, Problem::Checksum { .. }), "{problem}");
    // With a length the connection is known to have broken.
    let server = one_file(bytes, |_, response| Response { cut: Some(0), ..response });
    let Err(problem) = World::new(&server.url).pull(&address(&server, &sum)).await else {
        panic!("truncated")
    };
    assert!(matches!(problem, Problem::Network { .. }), "{problem}");
}

#[tokio::test]
async fn a_full_disk_is_known_before() {
    let server = honest();
    let mut world = World::new(&server.url);
    world.settings.free_space = |_| Ok(1 << 20);
    let Err(problem) = world.pull("org/name").await else { panic!("full") };
    assert!(matches!(problem, Problem::Space { need: 12_022, .. }), "{problem}");
    assert!(problem.remedy().contains("byzerllm models remove"));
    assert_eq!(server.count("resolve"), 0, "nothing was downloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pulls_of_one_model_do_not_harm_each_other() {
    let server = honest();
    let world = World::new(&server.url);
    let pulls = (0..6).map(|_| {
        let hub = world.hub();
        tokio::spawn(async move {
            hub.pull(&byzerllm_hub::Reference::parse("org/name", None, None).unwrap(), &()).await
        })
    });
    for pull in futures::future::join_all(pulls).await {
        let pulled = pull.unwrap().unwrap();
        for (name, bytes) in files().into_iter().take(3) {
            assert_eq!(std::fs::read(pulled.path.join(name)).unwrap(), bytes);
        }
    }
    assert_eq!(server.count("model.safetensors"), 11, "each piece once");
    assert!(world.names("blobs").len() == 3);
}
