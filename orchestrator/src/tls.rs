//! TLS 1.3 for devices and people on one port: a client certificate is verified if there is one, and asked for where
//! it is needed.

pub(crate) mod authority;
pub(crate) mod listener;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub(crate) use authority::{Authority, AuthorityError};

/// The one set of algorithms: ring.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
