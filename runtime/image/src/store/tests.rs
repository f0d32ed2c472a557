//! What is kept, what is refused, and that nothing half-done remains.

use super::*;

struct Fixture {
    store: ContentStore,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Fixture { store: ContentStore::open(dir.path().join("images")).unwrap(), _dir: dir }
}

fn describe(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: "text/plain".into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn files(store: &ContentStore) -> usize {
    fs::read_dir(&store.blobs).unwrap().count()
}

#[test]
fn a_blob_is_kept_once_and_can_be_read_and_removed() {
    let Fixture { store, _dir } = fixture();
    let hello = describe(b"hello");
    assert_eq!(store.ingest(&hello, &b"hello"[..]).unwrap(), Ingested::New);
    assert_eq!(store.ingest(&hello, &b"unread"[..]).unwrap(), Ingested::AlreadyPresent);
    assert_eq!(store.list().unwrap(), [(hello.digest, 5)]);
    assert_eq!(store.read(&hello, 5).unwrap(), b"hello");
    assert!(matches!(store.read(&hello, 4), Err(StoreError::Damaged { .. })), "over the limit");
    store.remove(&hello.digest).unwrap();
    store.remove(&hello.digest).unwrap();
    assert!(!store.contains(&hello.digest));
    assert!(matches!(store.open_blob(&hello.digest), Err(StoreError::NotFound { .. })));
}

#[test]
fn wrong_content_is_refused_and_leaves_nothing() {
    let Fixture { store, _dir } = fixture();
    let hello = describe(b"hello");
    let wrong = store.ingest(&hello, &b"jello"[..]).unwrap_err();
    assert!(matches!(wrong, IngestError::WrongDigest { .. }), "{wrong}");
    let short = store.ingest(&hello, &b"hell"[..]).unwrap_err();
    assert!(matches!(short, IngestError::Truncated { received: 4, size: 5, .. }), "{short}");
    let long = store.ingest(&hello, io::repeat(b'h')).unwrap_err();
    assert!(matches!(long, IngestError::TooLong { .. }), "{long}");
    let huge = store.ingest(&Descriptor { size: u64::MAX, ..hello }, io::empty()).unwrap_err();
    assert!(matches!(huge, IngestError::TooLarge { .. }), "{huge}");
    assert_eq!(files(&store), 0);
}

#[test]
fn damage_on_disk_is_noticed_when_a_document_is_read() {
    let Fixture { store, _dir } = fixture();
    let written = store.write_bytes("text/plain", b"hello").unwrap();
    fs::write(store.path(&written.digest), b"jello").unwrap();
    assert!(matches!(store.read(&written, 100), Err(StoreError::Damaged { .. })));
}

#[test]
fn writers_of_one_digest_do_not_disturb_each_other() {
    let Fixture { store, _dir } = fixture();
    let bytes = vec![7; 3 << 20];
    let descriptor = describe(&bytes);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.ingest(&descriptor, &bytes[..]).unwrap());
        }
    });
    assert_eq!(store.read(&descriptor, u64::MAX).unwrap(), bytes);
    assert_eq!(files(&store), 1);
}

#[test]
fn others_cannot_look_inside() {
    use std::os::unix::fs::PermissionsExt;
    let Fixture { store, _dir } = fixture();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let blob = store.write_bytes("text/plain", b"hello").unwrap();
    assert_eq!(mode(&store.blobs), 0o700);
    assert_eq!(mode(store.blobs.parent().unwrap().parent().unwrap()), 0o700);
    assert_eq!(mode(&store.path(&blob.digest)), 0o600);
}

#[tokio::test]
async fn asynchronous_sources_are_checked_alike() {
    let Fixture { store, _dir } = fixture();
    let bytes = vec![7; 5 << 20];
    let descriptor = describe(&bytes);
    let last = std::cell::Cell::new(0);
    let wrong = store.ingest_async(&descriptor, &bytes[1..], |_| {}).await.unwrap_err();
    assert!(matches!(wrong, IngestError::Truncated { .. }), "{wrong}");
    let taken = store.ingest_async(&descriptor, &bytes[..], |received| last.set(received)).await.unwrap();
    assert_eq!((taken, last.get()), (Ingested::New, descriptor.size));
    let again = store.ingest_async(&descriptor, tokio::io::empty(), |_| {}).await.unwrap();
    assert_eq!(again, Ingested::AlreadyPresent);
}
