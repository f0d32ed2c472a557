//! GET requests with bounds: time limits, few redirects, no fall back from TLS to plain HTTP, bodies of limited size.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::Timeouts;

/// Registries redirect to a content delivery network: once, rarely twice.
const MAX_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("swarm/", env!("CARGO_PKG_VERSION"));

/// Clients for both schemes.
pub(super) struct Http {
    timeouts: Timeouts,
    plain: OnceLock<Client>,
    tls: OnceLock<Client>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum HttpError {
    Unreachable(Box<dyn std::error::Error + Send + Sync>),
    TimedOut(&'static str, Duration),
    /// It answers, but not properly; the rest of a sentence.
    Bad(String),
}

impl HttpError {
    fn of(error: reqwest::Error, timeouts: &Timeouts) -> Self {
        match (error.is_timeout(), error.is_connect()) {
            (true, true) => Self::TimedOut("accept a connection", timeouts.connect),
            (true, false) => Self::TimedOut("go on answering", timeouts.idle),
            // The URL may carry a signature of a storage service, which is none of the log's business.
            (false, _) => Self::Unreachable(Box::new(error.without_url())),
        }
    }
}

impl Http {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Sends a request and follows redirects. `authorization` is sent to the host of `url` alone.
    pub(super) async fn get(
        &self,
        mut url: Url,
        accept: &str,
        authorization: Option<&reqwest::header::HeaderValue>,
    ) -> Result<Response, HttpError> {
        let origin = url.origin();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client(&url)?.get(url.clone()).header("accept", accept);
            if let Some(value) = authorization.filter(|_| url.origin() == origin) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let answer = self.timeouts.answer;
            let response = tokio::time::timeout(answer, request.send())
                .await
                .map_err(|_| HttpError::TimedOut("answer", answer))?
                .map_err(|error| HttpError::of(error, &self.timeouts))?;
            match redirected(&url, &response)? {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(HttpError::Bad(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    fn client(&self, url: &Url) -> Result<&Client, HttpError> {
        match url.scheme() {
            "http" => self.made(&self.plain, || self.builder().tls_certs_only([]).no_proxy().build()),
            "https" => self.made(&self.tls, || self.builder().https_only(true).build()),
            other => Err(HttpError::Bad(format!("it leads to a URL of the scheme {other:?}"))),
        }
    }

    fn made<'a>(
        &self,
        client: &'a OnceLock<Client>,
        make: impl FnOnce() -> reqwest::Result<Client>,
    ) -> Result<&'a Client, HttpError> {
        match client.get() {
            Some(client) => Ok(client),
            None => {
                let made = make().map_err(|error| HttpError::of(error, &self.timeouts))?;
                Ok(client.get_or_init(|| made))
            }
        }
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        // Another part of the process may have chosen a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.idle)
            .redirect(Policy::none())
            .referer(false)
    }
}

fn redirected(from: &Url, response: &Response) -> Result<Option<Url>, HttpError> {
    match response.status() {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {}
        _ => return Ok(None),
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location.and_then(|location| from.join(location).ok());
    let next = next.ok_or_else(|| HttpError::Bad("it redirects to nowhere".into()))?;
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(HttpError::Bad("it redirects from TLS to an unencrypted address".into()));
    }
    Ok(Some(next))
}

/// The value of a header that is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A whole body of at most `limit` bytes.
pub(super) async fn body(response: Response, limit: u64, timeouts: &Timeouts) -> Result<Vec<u8>, HttpError> {
    let after = timeouts.for_body(limit);
    match tokio::time::timeout(after, read_body(response, limit, timeouts)).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::TimedOut("send its whole answer", after)),
    }
}

async fn read_body(mut response: Response, limit: u64, timeouts: &Timeouts) -> Result<Vec<u8>, HttpError> {
    let too_long = || HttpError::Bad(format!("its answer has more than {limit} bytes"));
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| HttpError::of(error, timeouts))? {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
