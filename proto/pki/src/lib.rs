//! Who is who: the cluster's certificate authority, join tokens, node credentials, and the TLS connections that carry
//! them. Shared by managers and agents.
//!
//! It decides nothing about what a caller may do: it says who the caller is ([`Caller`]), proven by a certificate of
//! the cluster's own root, and nobody else's. Keys are ECDSA P-256, connections TLS 1.3, the provider is ring.
#![forbid(unsafe_code)]

mod accept;
mod authority;
mod caller;
mod coalesced;
mod credentials;
mod dial;
mod expelled;
mod identity;
mod join;
mod operator;
mod tls;
mod token;

pub use accept::{
    Connections, HANDSHAKE_TIMEOUT, LocalConnections, TlsConnections, accept_local, accept_tls,
};
pub use authority::{Authority, AuthorityError, FormerError, SigningRequest, former_member};
pub use caller::{Caller, Connection};
pub use coalesced::Coalesced;
pub use credentials::{Credentials, CredentialsError, NodeKey};
pub use dial::{CONNECT_TIMEOUT, DialError, Dialler};
pub use expelled::Expelled;
pub use identity::{IdentityError, NodeIdentity};
pub use join::{AnswerError, JoinError, JoinRequest, Joined, join, join_again, renew};
pub use operator::{
    EnrolError, Enrolled, OperatorCredentials, OperatorDialler, OperatorIdentity, OperatorToken,
    ParseOperatorTokenError, Unreachable, current_roots, enrol, operator_config, renew_operator,
};
pub use tls::{TlsError, client_config, server_config};
pub use token::{JoinSecret, JoinToken, ParseTokenError, RootDigest};
