//! Hubs that want to write elsewhere, fill the disk or never end.

use byzerllm_hub::Problem;
use serde_json::{Value, json};

use crate::server::{Response, Server};
use crate::world::{COMMIT, World, content, hugging_face, listing};

fn serving(value: Value) -> Server {
    Server::start(move |request| {
        if request.target.starts_with("/api/") {
            Response::json(&value)
        } else {
            Response::file(request, b"evil")
        }
    })
}

fn named(name: &str) -> Value {
    json!({"sha": COMMIT, "siblings": [
        {"rfilename": "config.json", "size": 4}, {"rfilename": "model.safetensors", "size": 4},
        {"rfilename": name, "size": 4},
    ]})
}

#[tokio::test]
async fn no_name_leaves_the_cache() {
    for name in [
        "../tokenizer.json",
        "a/../../../tokenizer.json",
        "/etc/tokenizer.json",
        "tokenizer\0.json",
        "..\\tokenizer.json",
        "C:\\tokenizer.json",
        "",
        "tokenizer:stream",
        "tokenizer.\u{1b}[2J",
        "tokenizer ",
    ] {
        let server = serving(named(name));
        let world = World::new(&server.url);
        let Err(problem) = world.pull("org/name").await else { panic!("{name:?} was taken") };
        assert!(matches!(problem, Problem::Name { .. }), "{name:?}: {problem}");
        assert_eq!(server.count("resolve"), 0, "{name:?}");
        assert!(!world.cache().join("models").exists());
        world.nothing_outside();
    }
    let files = vec![("NUL.gguf", content(10))];
    let server = Server::start(move |request| hugging_face(request, &files));
    assert!(matches!(World::new(&server.url).pull("org/name").await, Err(Problem::Name { .. })));
}

#[tokio::test]
async fn links_in_the_cache_are_not_followed() {
    let files = vec![("sub/m.gguf", content(10))];
    let server = Server::start(move |request| hugging_face(request, &files));
    let world = World::new(&server.url);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(world.cache().join("models/huggingface")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), world.cache().join("models/huggingface/org")).unwrap();
    let Err(problem) = world.pull("org/name").await else { panic!("it was followed") };
    assert!(matches!(problem, Problem::Disk { .. }), "{problem}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn endless_lists_and_sizes_are_refused() {
    let many: Vec<Value> = (0..30_000).map(|number| json!({"rfilename": format!("{number}.json")})).collect();
    let server = serving(json!({"sha": COMMIT, "siblings": many}));
    let Err(problem) = World::new(&server.url).pull("org/name").await else { panic!("taken") };
    assert!(matches!(&problem, Problem::Answer { why, .. } if why.contains("30000 files")), "{problem}");

    let server = Server::start(|_| Response { body: vec![b' '; 20 << 20], ..Response::new(200) });
    let Err(problem) = World::new(&server.url).pull("org/name").await else { panic!("taken") };
    assert!(matches!(&problem, Problem::Answer { why, .. } if why.contains("longer")), "{problem}");

    for size in [u64::MAX, u64::MAX / 2, 1 << 60] {
        let server = serving(json!({"sha": COMMIT, "siblings": [
            {"rfilename": "model.safetensors", "size": size}, {"rfilename": "config.json", "size": size},
        ]}));
        let world = World::new(&server.url);
        let Err(problem) = world.pull("org/name").await else { panic!("taken") };
        assert!(matches!(problem, Problem::Space { .. }), "{problem}");
        assert_eq!(server.count("resolve"), 0);
    }
}

#[tokio::test]
async fn more_or_other_bytes_than_promised_are_refused() {
    let files = vec![("m.gguf", content(100))];
    let list = listing(&files);
    let answers: [fn() -> Response; 3] = [
        || Response { body: content(5000), ..Response::new(200) },
        || Response { body: content(100), ..Response::new(206) }.with("Content-Range", "bytes 50-149/200"),
        || Response::new(302).with("Location", "file:///etc/passwd"),
    ];
    for answer in answers {
        let list = list.clone();
        let server =
            Server::start(
                move |request| {
                    if request.target.starts_with("/api/") { Response::json(&list) } else { answer() }
                },
            );
        let world = World::new(&server.url);
        let Err(problem) = world.pull("org/name").await else { panic!("taken") };
        assert!(matches!(problem, Problem::Answer { .. }), "{problem}");
        assert!(world.names("blobs").is_empty());
    }
}

#[tokio::test]
async fn strange_answers_are_said_to_be_strange() {
    for value in [json!([]), json!({"sha": "../x", "siblings": []}), json!({"sha": COMMIT}), json!("x")] {
        let server = serving(value);
        let Err(problem) = World::new(&server.url).pull("org/name").await else { panic!("taken") };
        assert!(matches!(problem, Problem::Answer { .. }), "{problem}");
    }
    let server = Server::start(|_| Response::new(302).with("Location", "/again"));
    let Err(problem) = World::new(&server.url).pull("org/name").await else { panic!("taken") };
    assert!(problem.to_string().contains("circles"), "{problem}");
    let server = Server::start(|request| {
        let bytes = content(50);
        let files = [("m.gguf", bytes)];
        let response = hugging_face(request, &files);
        if request.target.contains("resolve") {
            Response { headers: vec![("X-Repo-Commit".into(), "f".repeat(40))], ..response }
        } else {
            response
        }
    });
    let Err(problem) = World::new(&server.url).pull("org/name").await else { panic!("taken") };
    assert!(problem.to_string().contains("commit"), "{problem}");
}
