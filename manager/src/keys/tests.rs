//! Keys: what is sealed opens with the same key in the same context only; the file survives, and yields nothing locked.

use super::*;

#[test]
fn what_is_sealed_opens_with_the_same_key_in_the_same_context_only() {
    let (key, other) = (DataKey::generate(), DataKey::generate());
    for length in [0, 1, 100, 70_000] {
        let plain = vec![7; length];
        let sealed = key.seal(b"here", &plain);
        assert_eq!(sealed.len(), length + OVERHEAD);
        assert_eq!(key.open(b"here", &sealed).as_ref(), Some(&plain));
        assert!(key.open(b"there", &sealed).is_none() && other.open(b"here", &sealed).is_none());
        for at in 0..sealed.len().min(200) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(b"here", &changed).is_none(), "byte {at} of {length}");
        }
        assert!((0..sealed.len().min(100)).all(|cut| key.open(b"here", &sealed[..cut]).is_none()));
    }
    assert_ne!(key.seal(b"", b"same"), key.seal(b"", b"same"));
    assert!(key.name(b"a") == key.name(b"a") && key.name(b"a") != key.name(b"b"));
    assert_ne!(key.name(b"a"), other.name(b"a"));
}

#[test]
fn an_unlock_key_is_read_as_it_is_written() {
    let key = UnlockKey::generate();
    let text = key.reveal();
    assert!(text.starts_with("SWMKEY-1-") && text.len() == 52, "{} characters", text.len());
    let again: UnlockKey = format!(" {text}\n").parse().expect("the same");
    assert_eq!((again.reveal(), again.id()), (text.clone(), key.id()));
    assert_eq!("SWMTKN-1-x".parse::<UnlockKey>().err(), Some(ParseUnlockKeyError::Prefix));
    assert_eq!(text[..50].parse::<UnlockKey>().err(), Some(ParseUnlockKeyError::Shape));
    assert!(!format!("{key:?}").contains(&text[9..]));
}

#[test]
fn a_locked_file_yields_nothing_without_its_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let ring = Keyring::create(directory.path()).expect("made");
    let private = ring.wrap_private_key("-----BEGIN PRIVATE KEY-----");
    let sealed = ring.key().seal(b"", b"canary");
    let (first, second) = (UnlockKey::generate(), UnlockKey::generate());
    ring.lock_with(Some(&first), 5).expect("locked");
    let file = std::fs::read(directory.path().join("data.key")).expect("there");
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ring.key().bytes());
    assert!(!String::from_utf8_lossy(&file).contains(&encoded[..40]));

    let locked = || match Keyring::open(directory.path()).expect("opens") {
        Opened::Locked(locked) => locked,
        Opened::Unlocked(_) => panic!("it is locked"),
    };
    let refused = locked().unlock(&second).expect_err("another key").to_string();
    assert!(refused.contains(&first.id()) && refused.contains(&second.id()), "{refused}");
    let again = locked().unlock(&first).expect("its key");
    assert_eq!(again.key().open(b"", &sealed).as_deref(), Some(&b"canary"[..]));
    assert_eq!(again.unwrap_private_key(&private).as_deref(), Some("-----BEGIN PRIVATE KEY-----"));

    again.lock_with(None, 4).expect("an older decision");
    assert!(locked().unlock(&first).is_ok());
    again.lock_with(Some(&second), 6).expect("rotated");
    assert!(locked().unlock(&first).is_err() && locked().unlock(&second).is_ok());
    again.lock_with(None, 7).expect("unlocked");
    assert!(matches!(Keyring::open(directory.path()), Ok(Opened::Unlocked(_))));
}

#[test]
fn a_lost_or_damaged_file_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(matches!(Keyring::open(directory.path()), Err(KeyError::Gone { .. })));
    Keyring::create(directory.path())
        .expect("made")
        .lock_with(Some(&UnlockKey::generate()), 1)
        .expect("locked");
    let path = directory.path().join("data.key");
    let whole = std::fs::read(&path).expect("there");
    for at in 0..whole.len() {
        let mut hurt = whole.clone();
        hurt[at] ^= 0x04;
        std::fs::write(&path, &hurt).expect("written");
        let opened = Keyring::open(directory.path());
        // White space is nobody's.
        let harmless = whole[at].is_ascii_whitespace() || hurt[at].is_ascii_whitespace();
        assert!(harmless || matches!(opened, Err(KeyError::Damaged { .. })), "byte {at}: {opened:?}");
        std::fs::write(&path, &whole[..at]).expect("written");
        assert!(matches!(Keyring::open(directory.path()), Err(KeyError::Damaged { .. })), "cut at {at}");
    }
}
