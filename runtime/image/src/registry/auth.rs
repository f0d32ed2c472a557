//! Authentication as registries ask for it: HTTP basic, or a bearer token from the service that they name.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::Credentials;
use super::http::{self, Http, HttpError};
use crate::Reference;

/// A token is a signed document of a few KiB.
const MAX_TOKEN_ANSWER_BYTES: u64 = 64 << 10;
/// Repositories whose token is remembered; more than a node pulls from before tokens expire.
const MAX_TOKENS: usize = 256;

/// The `Authorization` that was last accepted, by domain and repository. Expiry shows when it is refused.
#[derive(Default)]
pub(super) struct Tokens(Mutex<BTreeMap<String, HeaderValue>>);

impl Tokens {
    pub(super) fn get(&self, reference: &Reference) -> Option<HeaderValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&reference.name()).cloned()
    }

    pub(super) fn set(&self, reference: &Reference, value: HeaderValue) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(reference.name(), value);
    }
}

/// Why no authorisation was found.
#[derive(Debug)]
pub(super) enum AuthError {
    /// The answer is no; what was said about it.
    Denied(String),
    Http(HttpError),
}

impl From<HttpError> for AuthError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// How a registry wants to be authenticated to.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Answers the challenge in `headers`, which came from `registry`.
pub(super) async fn authorize(
    http: &Http,
    registry: &Url,
    headers: &HeaderMap,
    reference: &Reference,
    credentials: Option<&Credentials>,
) -> Result<HeaderValue, AuthError> {
    let challenges = headers.get_all(WWW_AUTHENTICATE);
    let challenge = challenges.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
    match (challenge, credentials) {
        (Some(Challenge::Basic), Some(credentials)) => Ok(basic(credentials)),
        (Some(Challenge::Basic), None) => Err(AuthError::Denied("it asks for a user and password".into())),
        (Some(Challenge::Bearer { realm, service, scope }), credentials) => {
            let realm = realm_url(registry, &realm, service, scope, reference)?;
            token(http, realm, credentials).await
        }
        (None, _) => Err(AuthError::Denied("it does not say how to authenticate".into())),
    }
}

fn realm_url(
    registry: &Url,
    realm: &str,
    service: Option<String>,
    scope: Option<String>,
    reference: &Reference,
) -> Result<Url, HttpError> {
    let bad = |problem: &str| HttpError::Bad(format!("its token service {problem}"));
    let mut url = Url::parse(realm).map_err(|_| bad("has no proper address"))?;
    if registry.scheme() == "https" && url.scheme() != "https" {
        return Err(bad("is not reached through TLS"));
    }
    let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", reference.repository()));
    url.query_pairs_mut().append_pair("scope", &scope);
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", &service);
    }
    Ok(url)
}

async fn token(http: &Http, realm: Url, credentials: Option<&Credentials>) -> Result<HeaderValue, AuthError> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let authorization = credentials.map(basic);
    let response = http.get(realm, "application/json", authorization.as_ref()).await?;
    let status = response.status();
    if status.is_client_error() {
        return Err(AuthError::Denied(format!("its token service answers {}", status.as_u16())));
    }
    if !status.is_success() {
        return Err(HttpError::Bad(format!("its token service answers {}", status.as_u16())).into());
    }
    let body = http::body(response, MAX_TOKEN_ANSWER_BYTES, http.timeouts()).await?;
    let malformed = || HttpError::Bad("its token service gives no token".into());
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| malformed())?;
    let token = answer.token.or(answer.access_token).ok_or_else(malformed)?;
    Ok(sensitive(&format!("Bearer {token}")).ok_or_else(malformed)?)
}

fn basic(credentials: &Credentials) -> HeaderValue {
    use base64::Engine as _;
    let Credentials { username, password } = credentials;
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    sensitive(&format!("Basic {encoded}")).expect("base64 is made of visible characters")
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, parameters) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parse_parameters(parameters)?;
        Some(Self::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        })
    }
}

/// `key="value",key=value`; values in quotes may hold commas.
fn parse_parameters(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut parameters = BTreeMap::new();
    loop {
        text = text.trim_start_matches([' ', ',', '\t']);
        if text.is_empty() {
            return Some(parameters);
        }
        let (key, rest) = text.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(',').unwrap_or((rest, "")),
        };
        parameters.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=\"no realm\""), None);
        assert_eq!(Challenge::parse("Bearer realm=\"unterminated"), None);
        let text = r#"Bearer realm="https://auth/token",service="reg, istry" , scope=repository:a/b:pull"#;
        let expected = Challenge::Bearer {
            realm: "https://auth/token".into(),
            service: Some("reg, istry".into()),
            scope: Some("repository:a/b:pull".into()),
        };
        assert_eq!(Challenge::parse(text), Some(expected));
    }

    #[test]
    fn credentials_do_not_leave_tls() {
        let reference: Reference = "ghcr.io/a/b".parse().unwrap();
        let registry = Url::parse("https://ghcr.io/v2/").unwrap();
        let url = |realm: &str| realm_url(&registry, realm, None, None, &reference);
        assert!(url("http://ghcr.io/token").is_err());
        assert!(url("nonsense").is_err());
        assert_eq!(
            url("https://ghcr.io/token?a=b").unwrap().as_str(),
            "https://ghcr.io/token?a=b&scope=repository%3Aa%2Fb%3Apull"
        );
    }
}
