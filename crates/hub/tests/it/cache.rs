//! The cache beside other tools' files: list, size, verify, remove.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use byzerllm_hub::Problem;

use crate::world::{COMMIT, World, honest};

#[tokio::test]
async fn models_are_listed_verified_and_removed() {
    let server = honest();
    let world = World::new(&server.url);
    std::fs::create_dir_all(world.cache().join("models")).unwrap();
    let script = world.cache().join("models/smollm2.gguf");
    std::fs::write(&script, b"GGUF").unwrap();
    std::fs::write(world.cache().join("models/qwen.part1of6"), b"part").unwrap();
    let pulled = world.pull("org/name").await.unwrap();

    let hub = world.hub();
    let models = hub.models();
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["org/name", "smollm2"]);
    assert_eq!((models[0].size, models[0].revision.as_str(), models[0].files), (12_022, COMMIT, 3));
    assert_eq!(models[1].path, script);
    assert!(hub.size() >= 12_022);
    assert_eq!(std::fs::metadata(pulled.path.join("config.json")).unwrap().nlink(), 2, "no second copy");
    assert!(hub.verify(&models[0]).unwrap().is_empty());

    let mut bytes = std::fs::read(pulled.path.join("model.safetensors")).unwrap();
    bytes[7] ^= 1;
    std::fs::write(pulled.path.join("model.safetensors"), bytes).unwrap();
    let findings = hub.verify(&models[0]).unwrap();
    assert_eq!((findings.len(), findings[0].file.as_str()), (1, "model.safetensors"));

    let Err(problem) = hub.named("org/nmae") else { panic!("missing") };
    assert!(matches!(&problem, Problem::Missing { hint, .. } if hint.contains("org/name")), "{problem:?}");
    assert_eq!(hub.named(&format!("org/name@{}", &COMMIT[..8])).unwrap().len(), 1);
    assert!(hub.remove(&models[0]).unwrap() > 0);
    assert!(world.names("blobs").is_empty());
    assert_eq!(world.names("models"), ["qwen.part1of6", "smollm2.gguf"]);
    hub.remove(&hub.models()[0]).unwrap();
    assert!(!script.exists() && world.names("models") == ["qwen.part1of6"]);
}

#[tokio::test]
async fn a_blob_that_two_models_share_stays() {
    let server = honest();
    let world = World::new(&server.url);
    world.pull("org/name").await.unwrap();
    let one = world.pull_file("org/name", None, Some("model.safetensors")).await.unwrap();
    assert_eq!(one.path, world.cache().join(format!("models/huggingface/org/name/{COMMIT}")));
    let copy = world.cache().join("models/huggingface/other/name");
    std::fs::create_dir_all(&copy).unwrap();
    let manifest = std::fs::read_to_string(one.path.join(".byzerllm.json")).unwrap();
    std::fs::create_dir_all(copy.join(COMMIT)).unwrap();
    std::fs::write(copy.join(COMMIT).join(".byzerllm.json"), manifest.replace("\"org\"", "\"other\""))
        .unwrap();
    let hub = world.hub();
    assert_eq!(hub.models().len(), 2);
    hub.remove(&hub.named("org/name").unwrap()[0]).unwrap();
    assert_eq!(world.names("blobs").len(), 3);
}

#[tokio::test]
async fn an_abandoned_download_goes_with_the_next_removal() {
    let server = honest();
    let world = World::new(&server.url);
    world.pull("org/name").await.unwrap();
    let downloads = world.cache().join("downloads");
    for (name, days) in [("old.part", 8), ("new.part", 6), ("old.lock", 8)] {
        let file = std::fs::File::create(downloads.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
    }
    let hub = world.hub();
    hub.remove(&hub.models()[0]).unwrap();
    let left = world.names("downloads");
    assert!(left.contains(&"new.part".into()) && left.contains(&"old.lock".into()), "{left:?}");
    assert!(!left.contains(&"old.part".into()), "{left:?}");
}

#[tokio::test]
async fn a_pull_goes_before_a_removal() {
    let server = honest();
    let world = World::new(&server.url);
    world.pull("org/name").await.unwrap();
    let hub = world.hub();
    let lock = std::fs::File::open(world.cache().join("downloads/cache.lock")).unwrap();
    lock.lock_shared().unwrap();
    assert!(matches!(hub.remove(&hub.models()[0]), Err(Problem::Busy { .. })));
    drop(lock);
    hub.remove(&hub.models()[0]).unwrap();
}

#[tokio::test]
async fn a_broken_file_is_pulled_again() {
    let server = honest();
    let world = World::new(&server.url);
    let pulled = world.pull("org/name").await.unwrap();
    std::fs::remove_file(pulled.path.join("config.json")).unwrap();
    let reference = byzerllm_hub::Reference::parse("org/name", None, None).unwrap();
    assert!(world.hub().find(&reference).is_none());
    world.hub().obtain(&reference, &()).await.unwrap();
    assert!(pulled.path.join("config.json").is_file());
}
