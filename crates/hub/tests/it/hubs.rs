//! Both hubs as they are meant: listings, files, revisions, tokens, offline.

use byzerllm_hub::{Problem, Secret, Source};
use serde_json::json;

use crate::server::{Response, Server};
use crate::world::{COMMIT, World, content, files, honest, hugging_face, listing, sha256};

#[tokio::test]
async fn a_model_is_pulled_once_and_lies_where_the_cache_says() {
    let server = honest();
    let world = World::new(&server.url);
    let pulled = world.pull("org/name").await.unwrap();
    assert_eq!(pulled.path, world.cache().join(format!("models/huggingface/org/name/{COMMIT}")));
    assert_eq!((pulled.files, pulled.revision.as_deref()), (3, Some(COMMIT)));
    for (name, bytes) in files().into_iter().take(3) {
        assert_eq!(std::fs::read(pulled.path.join(name)).unwrap(), bytes, "{name}");
        assert!(world.cache().join("blobs").join(sha256(&bytes)).is_file(), "{name}");
    }
    assert_eq!(server.count("README") + server.count("onnx"), 0);
    assert!(server.log().iter().filter(|request| request.range().is_some()).count() > 10, "ranges");
    let weights = server.count("model.safetensors");
    world.pull("org/name").await.unwrap();
    assert_eq!(server.count("model.safetensors"), weights, "what is there is not asked for again");
    world.nothing_outside();
}

#[tokio::test]
async fn a_revision_is_encoded_and_found_again_offline() {
    let server = honest();
    let mut world = World::new(&server.url);
    world.pull("org/name@refs/pr/1").await.unwrap();
    assert_eq!(server.count("/revision/refs%2Fpr%2F1?blobs=true"), 1);
    let asked = server.log().len();
    world.settings.offline = true;
    for text in ["org/name", "org/name@refs/pr/1", &format!("org/name@{COMMIT}")] {
        world.pull(text).await.unwrap();
    }
    let Err(problem) = world.pull("org/name@other").await else { panic!("not in the cache") };
    assert!(matches!(problem, Problem::Offline { .. }), "{problem}");
    assert!(problem.to_string().contains("org/name@other") && problem.remedy().contains("byzerllm pull"));
    assert_eq!(server.log().len(), asked, "offline means no request");
}

#[tokio::test]
async fn one_gguf_file_or_the_one_that_is_picked() {
    let files = vec![("m-Q4_K_M.gguf", content(2100)), ("m-Q8_0.gguf", content(4100))];
    let server = Server::start(move |request| hugging_face(request, &files));
    let mut world = World::new(&server.url);
    let usual = world.pull("org/name").await.unwrap();
    assert!(usual.path.ends_with("m-Q4_K_M.gguf"), "{:?}", usual.path);
    let picked = world.pull_file("org/name", None, Some("*q8_0*")).await.unwrap();
    assert!(picked.path.ends_with("m-Q8_0.gguf"), "{:?}", picked.path);
    world.settings.offline = true;
    assert_eq!(world.pull("org/name").await.unwrap().path, usual.path);
    assert_eq!(world.pull_file("org/name", None, Some("*q8_0*")).await.unwrap().path, picked.path);
    assert!(world.pull_file("org/name", None, Some("*q2*")).await.is_err());
}

#[tokio::test]
async fn a_token_never_follows_a_redirect_to_another_origin() {
    let files = files();
    let storage_files = files.clone();
    let storage = Server::start(move |request| {
        let name = request.target.trim_start_matches("/storage/").split('?').next().unwrap();
        let (_, bytes) = storage_files.iter().find(|(file, _)| *file == name).unwrap();
        Response::file(request, bytes)
    });
    let elsewhere = storage.url.clone();
    let server = Server::start(move |request| {
        if request.target.starts_with("/api/") {
            return Response::json(&listing(&files));
        }
        let name = request.target.rsplit('/').next().unwrap();
        Response::new(302)
            .with("Location", &format!("{elsewhere}/storage/{name}?signature=secret-signature"))
            .with("X-Repo-Commit", COMMIT)
    });
    let mut world = World::new(&server.url);
    world.settings.hugging_face_token = Some(Secret::new("hf_secret"));
    world.pull("org/name").await.unwrap();
    assert!(server.log().iter().all(|request| request.headers["authorization"] == "Bearer hf_secret"));
    assert!(!storage.log().is_empty());
    for request in storage.log() {
        assert!(!request.headers.contains_key("authorization") && !request.headers.contains_key("cookie"));
    }
}

#[tokio::test]
async fn gated_and_private_models_name_the_variable() {
    for (status, code, words) in [(403, "GatedRepo", "Ask its owner"), (401, "RepoNotFound", "Set HF_TOKEN")]
    {
        let server = Server::start(move |_| Response::new(status).with("X-Error-Code", code));
        let mut world = World::new(&server.url);
        let Err(problem) = world.pull("org/name").await else { panic!("denied") };
        assert!(problem.to_string().contains("anonymous users"), "{problem}");
        assert!(
            problem.remedy().contains(words) && problem.remedy().contains("HF_TOKEN"),
            "{}",
            problem.remedy()
        );
        world.settings.hugging_face_token = Some(Secret::new("hf_secret"));
        let Err(problem) = world.pull("org/name").await else { panic!("denied") };
        assert!(problem.to_string().contains("this token"), "{problem}");
        let all = format!("{problem:?} {problem} {}", problem.remedy());
        assert!(!all.contains("hf_secret"), "{all}");
    }
}

#[tokio::test]
async fn what_is_not_there_comes_with_a_hint() {
    let server = honest();
    let world = World::new(&server.url);
    let Err(problem) = world.pull("org/other").await else { panic!("missing") };
    assert!(
        matches!(&problem, Problem::Missing { hint, .. } if hint.contains("--from modelscope")),
        "{problem:?}"
    );
    let Err(problem) = world.pull_file("org/name", None, Some("modle.safetensors")).await else {
        panic!("missing")
    };
    assert!(problem.remedy().contains("model.safetensors"), "{}", problem.remedy());
    assert!(!world.cache().join("models").exists());
}

#[tokio::test]
async fn model_scope_speaks_its_own_words() {
    let weights = content(5000);
    let sum = sha256(&weights);
    let server = Server::start(move |request| {
        if request.target == "/api/v1/models/org/name/repo/files?Revision=v1&Recursive=true" {
            return Response::json(&json!({"Code": 200, "Success": true, "Data": {"Files": [
                {"Path": "sub", "Type": "tree", "Size": 0},
                {"Path": "config.json", "Type": "blob", "Size": 2, "Sha256": sha256(b"{}")},
                {"Path": "model.safetensors", "Type": "blob", "Size": 5000, "Sha256": sum},
            ]}}));
        }
        match request.target.strip_prefix("/api/v1/models/org/name/repo?Revision=v1&FilePath=") {
            Some("config.json") => Response::file(request, b"{}"),
            Some("model.safetensors") => Response::file(request, &weights),
            _ => Response::json(
                &json!({"Code": 10_010_205_001_u64 % 60_000, "Success": false, "Message": "no"}),
            ),
        }
    });
    let mut world = World::new(&server.url);
    world.settings.model_scope_token = Some(Secret::new("ms_secret"));
    let from = Some(Source::ModelScope);
    let pulled = world.pull_file("org/name@v1", from, None).await.unwrap();
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).unwrap(), content(5000));
    assert!(pulled.path.starts_with(world.cache().join("models/modelscope/org/name")));
    assert!(server.log().iter().all(|request| request.headers["cookie"] == "m_session_id=ms_secret"));
    let Err(problem) = world.pull_file("org/name", from, None).await else { panic!("missing") };
    assert!(matches!(&problem, Problem::Missing { .. }), "{problem:?}");
    world.settings.offline = true;
    assert_eq!(world.pull_file("org/name@v1", from, None).await.unwrap().path, pulled.path);
}
