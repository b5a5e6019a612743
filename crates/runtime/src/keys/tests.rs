//! Life of a key, and what holds for any set of scopes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn memory() -> Keys {
    Keys::over(None).unwrap()
}

fn scopes(text: &str) -> Scopes {
    text.split_whitespace().map(|scope| scope.parse().unwrap()).collect()
}

#[test]
fn a_key_lives_on_disk_without_its_secret() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (first, rotated);
    {
        let keys = Keys::open(&state).unwrap();
        assert!(!keys.exist() && keys.list().is_empty());
        first = keys.create(&Scopes::all(), "app", &scopes("inference:chat"), None).unwrap();
        assert_eq!(first.key.len(), 3 + 16 + 1 + 64);
        rotated = keys.rotate(&Scopes::all(), "app", Duration::from_secs(60)).unwrap();
        assert_eq!(rotated.info.id, first.info.id);
        let error = Keys::open(&state).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "the directory has one owner");
        let secrets: Vec<&str> =
            [&first.key, &rotated.key].map(|key| key.rsplit('-').next().unwrap()).to_vec();
        for entry in std::fs::read_dir(&state).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            for secret in &secrets {
                // Neither as text nor as the bytes that it writes.
                let raw: Vec<u8> =
                    (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
                let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!holds(secret.as_bytes()) && !holds(&raw), "{}", path.display());
            }
        }
        assert!(!format!("{keys:?} {first:?} {:?}", keys.list()).contains(secrets[0]));
    }
    let keys = Keys::open(&state).unwrap();
    assert!(keys.exist());
    let now = now();
    for key in [&first.key, &rotated.key] {
        let grant = keys.authenticate(key.as_bytes()).unwrap();
        assert_eq!((grant.name.as_str(), &grant.scopes), ("app", &scopes("inference:chat")));
        assert_eq!(grant.domain, keys.authenticate(first.key.as_bytes()).unwrap().domain);
    }
    assert_eq!(keys.authenticate_at(first.key.as_bytes(), now + 61), Err(KeyRefusal::Unknown));
    assert!(keys.authenticate_at(rotated.key.as_bytes(), now + 61).is_ok());
    // A further rotation without grace ends both.
    let last = keys.rotate(&Scopes::all(), "app", Duration::ZERO).unwrap();
    for old in [&first.key, &rotated.key] {
        assert_eq!(keys.authenticate(old.as_bytes()), Err(KeyRefusal::Unknown));
    }
    keys.authenticate(last.key.as_bytes()).unwrap();
    let info = keys.revoke(&Scopes::all(), "app").unwrap();
    assert!(!info.active && info.revoked.is_some());
    drop(keys);
    let keys = Keys::open(&state).unwrap();
    assert!(keys.exist(), "revoking the last key does not open the server");
    assert_eq!(keys.authenticate(last.key.as_bytes()), Err(KeyRefusal::Unknown));
    // The name is free again, the revoked key is gone from the list.
    let again = keys.create(&Scopes::all(), "app", &Scopes::inference(), None).unwrap();
    assert_eq!(keys.list(), [again.info]);
}

#[test]
fn keys_end_when_their_time_is_over() {
    let keys = memory();
    let life = Duration::from_secs(30);
    let key = keys.create(&Scopes::all(), "a", &Scopes::inference(), Some(life)).unwrap();
    let expires = key.info.expires.unwrap();
    assert!(keys.authenticate_at(key.key.as_bytes(), expires - 1).is_ok());
    assert_eq!(keys.authenticate_at(key.key.as_bytes(), expires), Err(KeyRefusal::Expired));
    let mut wrong = key.key;
    let last = if wrong.pop() == Some('0') { '1' } else { '0' };
    wrong.push(last);
    assert_eq!(keys.authenticate_at(wrong.as_bytes(), expires), Err(KeyRefusal::Unknown));
    let over = keys.create(&Scopes::all(), "b", &Scopes::inference(), Some(Duration::ZERO)).unwrap();
    assert!(!over.info.active);
    assert_eq!(keys.rotate(&Scopes::all(), "b", Duration::ZERO).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn mistakes_are_named() {
    let keys = memory();
    let all = Scopes::all();
    let made = keys.create(&all, "a", &Scopes::inference(), None).unwrap();
    let create = |name: &str, scopes: &Scopes, life| keys.create(&all, name, scopes, life).unwrap_err();
    assert_eq!(create("a", &Scopes::inference(), None).kind(), ErrorKind::Conflict);
    for name in ["", "a b", "..", "a/b", "名", &"x".repeat(65), "'; DROP TABLE keys; --", &made.key] {
        let error = create(name, &Scopes::inference(), None);
        assert_eq!(error.param(), Some("name"), "{name}");
        assert!(!error.message().contains(&made.key));
    }
    assert_eq!(create("b", &Scopes::default(), None).param(), Some("scopes"));
    let long = Duration::from_secs(MAX_SECONDS + 1);
    assert_eq!(create("b", &Scopes::inference(), Some(long)).param(), Some("expires_seconds"));
    assert_eq!(keys.rotate(&all, "a", long).unwrap_err().param(), Some("grace_seconds"));
    assert_eq!(keys.rotate(&all, "none", Duration::ZERO).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(keys.revoke(&all, "none").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(keys.list().len(), 1);
    keys.close();
    assert_eq!(keys.revoke(&all, "a").unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn what_is_no_key_is_refused() {
    let keys = memory();
    let key = keys.create(&Scopes::all(), "a", &Scopes::all(), None).unwrap().key;
    keys.authenticate(key.as_bytes()).unwrap();
    let upper = key.to_uppercase();
    let blank = format!("bz-{}-{}", "0".repeat(16), "0".repeat(64));
    let (longer, spaced) = (format!("{key}0"), format!(" {key}"));
    let huge = "bz-".repeat(1 << 20);
    for text in ["", "bz-", "bz--", &key[..83], &longer, &spaced, &upper, &blank, &huge, "' OR 1=1 --"] {
        assert_eq!(keys.authenticate(text.as_bytes()), Err(KeyRefusal::Unknown));
    }
    for at in 0..key.len() {
        let mut changed = key.clone().into_bytes();
        changed[at] ^= 1;
        assert_eq!(keys.authenticate(&changed), Err(KeyRefusal::Unknown), "{at}");
    }
}

/// The deployments of the small world below; `other` stands for all names that no scope mentions.
const NAMES: [&str; 4] = ["a", "b", "c", "other"];

/// What a set allows, said a second time and without the lattice: admin, metrics, and the names that may be asked.
fn reach(scopes: &Scopes) -> BTreeSet<String> {
    let words: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let mut reach = BTreeSet::new();
    for word in words {
        match word.as_str() {
            "admin" => reach.extend(["admin", "metrics"].map(str::to_owned)),
            "metrics" => drop(reach.insert("metrics".to_owned())),
            "inference:*" => reach.extend(NAMES.map(|name| format!("ask {name}"))),
            word => drop(reach.insert(format!("ask {}", word.strip_prefix("inference:").unwrap()))),
        }
    }
    reach
}

fn any_scopes() -> impl Strategy<Value = Scopes> {
    let words = ["admin", "metrics", "inference:*", "inference:a", "inference:b", "inference:c"];
    proptest::sample::subsequence(words.to_vec(), 1..=words.len()).prop_map(|words| scopes(&words.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_key_never_reaches_or_mints_more_than_its_scopes(
        steps in proptest::collection::vec((any::<prop::sample::Index>(), any_scopes(), 0..3_u8), 1..30)
    ) {
        let keys = memory();
        // Who exists: the owner, and every key that was ever obtained, with the reach it was obtained from.
        let mut holders: Vec<(Option<String>, BTreeSet<String>)> = vec![(None, reach(&Scopes::all()))];
        for (step, (who, wanted, action)) in steps.into_iter().enumerate() {
            let (credential, limit) = holders[who.index(holders.len())].clone();
            let held = match &credential {
                None => Scopes::all(),
                Some(key) => match keys.authenticate(key.as_bytes()) {
                    Ok(grant) => grant.scopes,
                    // Rotated or revoked since.
                    Err(_) => continue,
                },
            };
            prop_assert!(reach(&held).is_subset(&limit));
            prop_assert_eq!(held.metrics(), reach(&held).contains("metrics"));
            for name in NAMES {
                prop_assert_eq!(held.deployment(name), reach(&held).contains(&format!("ask {name}")));
            }
            let names: Vec<KeyInfo> = keys.list().into_iter().filter(|info| info.active).collect();
            let target = (!names.is_empty()).then(|| &names[step % names.len()]);
            let made = match (action, target) {
                (1, Some(target)) => keys.rotate(&held, &target.name, Duration::ZERO),
                (2, Some(target)) => {
                    let allowed = held.admin() && reach(&target.scopes).is_subset(&reach(&held));
                    prop_assert_eq!(keys.revoke(&held, &target.name).is_ok(), allowed);
                    continue;
                }
                _ => keys.create(&held, &format!("k{step}"), &wanted, None),
            };
            let asked = match (action, target) { (1, Some(target)) => reach(&target.scopes), _ => reach(&wanted) };
            let allowed = held.admin() && asked.is_subset(&reach(&held));
            prop_assert_eq!(made.is_ok(), allowed, "{:?} asks for {:?}", held, asked);
            match made {
                Ok(made) => {
                    let got = keys.authenticate(made.key.as_bytes()).unwrap().scopes;
                    prop_assert!(reach(&got).is_subset(&limit), "{:?} got {:?}", held, got);
                    holders.push((Some(made.key), limit));
                }
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::PermissionDenied),
            }
        }
    }
}
