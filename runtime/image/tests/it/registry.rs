//! Pulling from a registry that misbehaves in every way, on a port of the loopback interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use swarm_image::media_type::{OCI_INDEX, OCI_MANIFEST};
use swarm_image::{
    Compression, ContentStore, Credentials, Digest, IngestError, Platform, Progress, Reference, Registry,
    RegistryError, RegistryOptions, Timeouts,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Image, Tar, chain, describe};

/// What the registry does when a path is asked for.
#[derive(Clone)]
enum Reply {
    Serve {
        content_type: &'static str,
        body: Vec<u8>,
    },
    Status(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Says that it has more than it sends, and closes the connection.
    CutAfter(usize, Vec<u8>),
    /// Sends the head and so much, and then nothing.
    HangAfter(usize, Vec<u8>),
    /// Accepts and says nothing.
    Hang,
    /// Only with this `Authorization`; otherwise this challenge.
    Guarded {
        authorization: String,
        challenge: String,
        then: Box<Reply>,
    },
}

#[derive(Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    requests: Vec<String>,
}

/// A server of fixed replies; it ends with the test's runtime.
struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    fn on(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.insert(path.into(), reply);
    }

    fn serves(&self, path: &str, content_type: &'static str, body: &[u8]) {
        self.on(path, Reply::Serve { content_type, body: body.to_vec() });
    }

    /// All of an image, with `tag` for its name.
    fn offer(&self, image: &Image, tag: &str) {
        self.serves(&format!("/v2/app/manifests/{tag}"), OCI_MANIFEST, &image.manifest);
        let manifest = format!("/v2/app/manifests/{}", Digest::of(&image.manifest));
        self.serves(&manifest, OCI_MANIFEST, &image.manifest);
        for blob in image.blobs.iter().chain([&image.config]) {
            self.serves(&blob_path(blob), "application/octet-stream", blob);
        }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("127.0.0.1:{}/app{rest}", self.port).parse().unwrap()
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn blob_path(blob: &[u8]) -> String {
    format!("/v2/app/blobs/{}", Digest::of(blob))
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    let (mut path, mut authorization) = (String::new(), None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap().to_owned();
        } else if let Some(value) = line.strip_prefix("authorization: ") {
            authorization = Some(value.to_owned());
        } else if line.is_empty() {
            break;
        }
    }
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests.push(path.clone());
        let without_query = path.split('?').next().unwrap();
        state.replies.get(without_query).cloned().unwrap_or(Reply::Status(404, vec![], vec![]))
    };
    answer(&mut stream, reply, authorization).await;
}

async fn answer(stream: &mut BufReader<TcpStream>, reply: Reply, authorization: Option<String>) {
    let head = |status: u16, length: usize, headers: &[(&str, String)]| {
        let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    };
    let (text, body, hang) = match reply {
        Reply::Serve { content_type, body } => {
            (head(200, body.len(), &[("content-type", content_type.into())]), body, false)
        }
        Reply::Status(status, headers, body) => (head(status, body.len(), &headers), body, false),
        Reply::CutAfter(sent, body) => (head(200, body.len(), &[]), body[..sent].to_vec(), false),
        Reply::HangAfter(sent, body) => (head(200, body.len(), &[]), body[..sent].to_vec(), true),
        Reply::Hang => (String::new(), vec![], true),
        Reply::Guarded { authorization: wanted, then, .. } if authorization.as_ref() == Some(&wanted) => {
            return Box::pin(answer(stream, *then, None)).await;
        }
        Reply::Guarded { challenge, .. } => (head(401, 0, &[("www-authenticate", challenge)]), vec![], false),
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.flush().await;
    if hang {
        // Until the client gives up and closes.
        let _ = stream.read_line(&mut String::new()).await;
    }
}

struct Fixture {
    server: Server,
    registry: Registry,
    store: ContentStore,
    image: Image,
    _dir: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_millis(300);

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Tar::default().file("base", &[1; 100_000]).end(),
        Tar::default().file("app", b"2").end(),
        Tar::default().file("data", b"3").end(),
        Tar::default().file("more", b"4").end(),
    ];
    Fixture {
        server: Server::start().await,
        registry: Registry::new(RegistryOptions::default()),
        store: ContentStore::open(dir.path()).unwrap(),
        image: Image::new(&layers, Compression::Gzip),
        _dir: dir,
    }
}

impl Fixture {
    fn impatient(&mut self) {
        let timeouts =
            Timeouts { connect: PATIENCE, answer: PATIENCE, idle: PATIENCE, ..Timeouts::default() };
        self.registry = Registry::new(RegistryOptions { timeouts, ..RegistryOptions::default() });
    }

    async fn pull(&self, rest: &str) -> Result<(), RegistryError> {
        let reference = self.server.reference(rest);
        let platform = Platform::current();
        let image = self.registry.pull(&reference, &platform, &self.store, |_| {}).await?;
        assert!(image.blobs().all(|blob| self.store.contains(&blob.digest)));
        Ok(())
    }

    async fn refused(&self, rest: &str) -> RegistryError {
        let error = self.pull(rest).await.unwrap_err();
        for (digest, size) in self.store.list().unwrap() {
            let mut content = self.store.open_blob(&digest).unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut content, &mut bytes).unwrap();
            assert_eq!(
                (Digest::of(&bytes), bytes.len() as u64),
                (digest, size),
                "only verified blobs are kept"
            );
        }
        error
    }
}

#[tokio::test]
async fn an_image_is_resolved_and_pulled_once() {
    let f = fixture().await;
    f.server.offer(&f.image, "1");
    let resolved = f.registry.resolve(&f.server.reference(":1")).await.unwrap();
    assert_eq!(resolved.target, f.image.target());
    assert!(resolved.offers(&Platform::current()) && !resolved.offers(&Platform::linux("s390x", "")));

    let stored = Mutex::new(Vec::new());
    let note = |progress| match progress {
        Progress::Stored(digest) => stored.lock().unwrap().push(digest),
        Progress::Fetching(blobs) => assert_eq!(blobs.len(), 5),
        Progress::Received { .. } => {}
    };
    let (reference, platform) = (f.server.reference(":1"), Platform::current());
    let image = f.registry.pull(&reference, &platform, &f.store, note).await.unwrap();
    assert_eq!(image.layers.len(), 4);
    assert_eq!(stored.lock().unwrap().len(), 5);

    f.server.requests();
    f.pull(":1").await.unwrap();
    assert_eq!(f.server.requests(), ["/v2/app/manifests/1"], "only the name is asked for again");
    f.registry.pull_target(&reference, &resolved.target, &platform, &f.store, |_| {}).await.unwrap();
    assert_eq!(f.server.requests(), Vec::<String>::new(), "nothing is asked for what is known and there");
    f.pull(&format!("@{}", resolved.target.digest)).await.unwrap();
}

#[tokio::test]
async fn an_index_leads_to_this_platform() {
    let f = fixture().await;
    f.server.offer(&f.image, "unused");
    let here = Platform::current();
    let other = describe(OCI_MANIFEST, b"never fetched");
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": other.digest, "size": other.size,
         "platform": {"os": "linux", "architecture": "s390x"}},
        {"mediaType": OCI_MANIFEST, "digest": f.image.target().digest, "size": f.image.target().size,
         "platform": {"os": "linux", "architecture": here.architecture}},
    ]});
    let index = index.to_string().into_bytes();
    f.server.serves("/v2/app/manifests/multi", OCI_INDEX, &index);
    let resolved = f.registry.resolve(&f.server.reference(":multi")).await.unwrap();
    assert_eq!(resolved.target.digest, Digest::of(&index), "the index, so that each node takes its own");
    assert_eq!(resolved.platforms.len(), 2);
    f.pull(":multi").await.unwrap();

    let nothing = Platform::linux("riscv64", "");
    let error = f.registry.pull(&f.server.reference(":multi"), &nothing, &f.store, |_| {}).await.unwrap_err();
    assert!(chain(&error).contains("not built for linux/riscv64, but for linux/s390x"), "{}", chain(&error));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let f = fixture().await;
    let error = f.refused(":nothing").await;
    assert!(matches!(error, RegistryError::NotFound { .. }) && !error.is_transient(), "{error}");
    f.server.offer(&f.image, "1");
    f.server.on(&blob_path(&f.image.blobs[2]), Reply::Status(404, vec![], vec![]));
    assert!(matches!(f.refused(":1").await, RegistryError::NotFound { .. }));
}

#[tokio::test]
async fn other_bytes_than_the_digest_promises_are_refused() {
    let f = fixture().await;
    f.server.offer(&f.image, "1");
    let path = blob_path(&f.image.blobs[0]);
    let mut wrong = f.image.blobs[0].clone();
    wrong[20] ^= 1;
    f.server.serves(&path, "", &wrong);
    let error = f.refused(":1").await;
    let expected = matches!(&error, RegistryError::Blob { source: IngestError::WrongDigest { .. }, .. });
    assert!(expected && !error.is_transient(), "{}", chain(&error));

    f.server.serves(&path, "", &[&wrong[..], b"more"].concat());
    let error = f.refused(":1").await;
    assert!(matches!(error, RegistryError::Blob { source: IngestError::TooLong { .. }, .. }), "{error}");
    f.server.serves(&path, "", &wrong[..10]);
    let error = f.refused(":1").await;
    assert!(matches!(error, RegistryError::Blob { source: IngestError::Truncated { .. }, .. }), "{error}");
    f.server.on(&path, Reply::CutAfter(10, wrong));
    let error = f.refused(":1").await;
    assert!(matches!(&error, RegistryError::Blob { source: IngestError::Read { .. }, .. }), "{error}");
    assert!(error.is_transient());

    f.server.serves(&path, "", &f.image.blobs[0]);
    f.store.write_bytes("", &f.image.blobs[1]).unwrap();
    f.server.requests();
    f.pull(":1").await.unwrap();
    let requests = f.server.requests();
    let there = blob_path(&f.image.blobs[1]);
    assert!(requests.contains(&path) && !requests.contains(&there), "a pull goes on: {requests:?}");
}

#[tokio::test]
async fn manifests_are_checked_before_anything_follows() {
    let f = fixture().await;
    f.server.offer(&f.image, "1");
    let bad_answer = async |rest: &str, says: &str| {
        let error = f.refused(rest).await;
        assert!(matches!(error, RegistryError::BadAnswer { .. } | RegistryError::Image { .. }), "{error}");
        assert!(chain(&error).contains(says), "{}", chain(&error));
        assert_eq!(f.store.list().unwrap(), []);
    };
    let digest = Digest::of(b"something else");
    f.server.serves(&format!("/v2/app/manifests/{digest}"), OCI_MANIFEST, &f.image.manifest);
    bad_answer(&format!("@{digest}"), &format!("asked for {digest}, it gives")).await;
    f.server.serves("/v2/app/manifests/html", "text/html; charset=utf-8", b"<html>");
    bad_answer(":html", "\"text/html\" is not the media type").await;
    f.server.serves("/v2/app/manifests/confused", OCI_INDEX, &f.image.manifest);
    bad_answer(":confused", "but calls itself").await;
    f.server.serves("/v2/app/manifests/garbage", OCI_MANIFEST, b"{");
    bad_answer(":garbage", "malformed").await;
    f.server.serves("/v2/app/manifests/huge", OCI_MANIFEST, &vec![b' '; 5 << 20]);
    bad_answer(":huge", "more than 4194304 bytes").await;
    let headers = vec![("docker-content-digest", digest.to_string()), ("content-type", OCI_MANIFEST.into())];
    f.server.on("/v2/app/manifests/stated", Reply::Status(200, headers, f.image.manifest.clone()));
    bad_answer(":stated", "it states the digest").await;
    f.server.on("/v2/app/manifests/teapot", Reply::Status(418, vec![], vec![]));
    bad_answer(":teapot", "HTTP status 418").await;
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up() {
    let mut f = fixture().await;
    f.impatient();
    f.server.on("/v2/app/manifests/hang", Reply::Hang);
    let error = f.refused(":hang").await;
    assert!(matches!(error, RegistryError::TimedOut { .. }) && error.is_transient(), "{}", chain(&error));
    f.server.on("/v2/app/manifests/half", Reply::HangAfter(10, f.image.manifest.clone()));
    let error = f.refused(":half").await;
    let given_up = matches!(error, RegistryError::TimedOut { .. } | RegistryError::BadAnswer { .. });
    assert!(given_up, "{}", chain(&error));
    f.server.offer(&f.image, "1");
    f.server.on(&blob_path(&f.image.blobs[0]), Reply::HangAfter(100, f.image.blobs[0].clone()));
    let error = f.refused(":1").await;
    assert!(error.is_transient(), "{}", chain(&error));
}

#[tokio::test]
async fn a_registry_that_is_not_there_or_busy_is_told_apart() {
    let f = fixture().await;
    f.server.on("/v2/app/manifests/busy", Reply::Status(503, vec![], vec![]));
    let limit = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
    f.server.on("/v2/app/manifests/limit", Reply::Status(429, vec![], limit.to_vec()));
    let error = f.refused(":busy").await;
    assert!(matches!(error, RegistryError::Unavailable { status: 503, .. }) && error.is_transient());
    let error = f.refused(":limit").await;
    assert!(error.to_string().contains("429 (slow down)"), "{error}");

    let port = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let nowhere: Reference = format!("127.0.0.1:{port}/app").parse().unwrap();
    let error = f.registry.resolve(&nowhere).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }) && error.is_transient(), "{error}");
    let tls: Reference = format!("127.0.0.1.invalid:{port}/app").parse().unwrap();
    let error = f.registry.resolve(&tls).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn credentials_are_given_where_they_are_asked_for() {
    let mut f = fixture().await;
    f.server.offer(&f.image, "1");
    let guard = |path: &str, authorization: &str, challenge: String| {
        let then = f.server.state.lock().unwrap().replies[path].clone();
        let authorization = authorization.to_owned();
        f.server.on(path, Reply::Guarded { authorization, challenge, then: Box::new(then) });
    };
    let basic = "Basic dXNlcjpwYXNz";
    let realm = format!("http://127.0.0.1:{}/token", f.server.port);
    let bearer = format!("Bearer realm=\"{realm}\",service=\"registry\",scope=\"repository:app:pull\"");
    guard("/v2/app/manifests/1", "Bearer secret", bearer);
    for blob in f.image.blobs.iter().chain([&f.image.config]) {
        guard(&blob_path(blob), "Bearer secret", "Basic realm=\"x\"".into());
    }
    f.server.serves("/token", "application/json", br#"{"token":"secret","expires_in":60}"#);
    guard("/token", basic, "Basic realm=\"x\"".into());

    let error = f.refused(":1").await;
    assert!(matches!(error, RegistryError::Unauthorized { .. }) && !error.is_transient(), "{error}");
    let credentials = Credentials { username: "user".into(), password: "pass".into() };
    assert!(!format!("{credentials:?}").contains("pass"));
    let domain = f.server.reference("").domain().to_owned();
    let credentials = BTreeMap::from([(domain, credentials)]);
    f.registry = Registry::new(RegistryOptions { credentials, ..RegistryOptions::default() });
    f.pull(":1").await.unwrap();

    // A hostile token must not break a header, nor the process.
    f.server.serves("/token", "application/json", br#"{"token":"a\r\nb"}"#);
    f.registry = Registry::new(RegistryOptions::default());
    assert!(matches!(f.refused(":1").await, RegistryError::BadAnswer { .. }));
    f.server.serves("/token", "application/json", b"no json");
    assert!(matches!(f.refused(":1").await, RegistryError::BadAnswer { .. }));
}

#[tokio::test]
async fn redirects_are_followed_but_credentials_stay() {
    let mut f = fixture().await;
    f.server.offer(&f.image, "1");
    let elsewhere = Server::start().await;
    let blob = &f.image.blobs[0];
    let location = format!("http://127.0.0.1:{}/cdn?signature=1", elsewhere.port);
    elsewhere.serves("/cdn", "", blob);
    let challenge = "Basic realm=\"x\"".to_owned();
    let then = Box::new(Reply::Status(307, vec![("location", location.clone())], vec![]));
    let authorization = "Basic dXNlcjpwYXNz".to_owned();
    f.server.on(&blob_path(blob), Reply::Guarded { authorization: authorization.clone(), challenge, then });
    let credentials = Credentials { username: "user".into(), password: "pass".into() };
    let credentials = BTreeMap::from([(f.server.reference("").domain().to_owned(), credentials)]);
    f.registry = Registry::new(RegistryOptions { credentials, ..RegistryOptions::default() });
    f.pull(":1").await.unwrap();

    // The other host would fail the pull if it saw the credentials.
    f.store.remove(&Digest::of(blob)).unwrap();
    let trap = Reply::Guarded { authorization, challenge: String::new(), then: Box::new(Reply::Hang) };
    elsewhere.on("/cdn", trap);
    assert!(matches!(f.refused(":1").await, RegistryError::Unauthorized { .. }));

    let circle = vec![("location", "/v2/app/manifests/circle".to_owned())];
    f.server.on("/v2/app/manifests/circle", Reply::Status(302, circle, vec![]));
    assert!(f.refused(":circle").await.to_string().contains("redirects more than 5 times"));
    f.server.on("/v2/app/manifests/lost", Reply::Status(302, vec![], vec![]));
    assert!(f.refused(":lost").await.to_string().contains("redirects to nowhere"));
    let file = vec![("location", "file:///etc/passwd".to_owned())];
    f.server.on("/v2/app/manifests/file", Reply::Status(302, file, vec![]));
    assert!(f.refused(":file").await.to_string().contains("scheme \"file\""));
}
