//! Trying Leasehold out on one machine: a dev trust domain that behaves like the real thing.

#[cfg(feature = "postgres")]
pub mod admin_role;
pub mod authority;
pub mod ca;
pub mod demo;
mod files;
pub mod issuer;
pub mod proxy;
pub mod run;
pub mod trust_domain;
pub mod workload_api;

/// Why the dev trust domain cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A name for a socket that is not a plain file name.
    #[error("`{name}` cannot name a dev identity: use 1 to 64 of a-z, 0-9 and `-`")]
    BadName {
        /// As given.
        name: String,
    },
    /// A trust domain that could be somebody's real one.
    #[error("`{trust_domain}` cannot be a dev trust domain: it must end in `.leasehold.test`")]
    NotADevTrustDomain {
        /// As given.
        trust_domain: String,
    },
    /// The key file is not one of ours, or was cut short.
    #[error("`{path}` is no dev key file: {reason}")]
    BadKeyFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key file can be read by others.
    #[error("`{path}` has mode {found:04o}: allowed is 0600")]
    KeyFileTooOpen {
        /// The file.
        path: String,
        /// Its permission bits.
        found: u32,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A key that signs tokens could not be made, or did not sign.
    #[error("cannot sign a token: {0}")]
    Token(#[from] leasehold_jose::SigningError),
    /// TLS takes no such certificate.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A socket could not be opened.
    #[error(transparent)]
    Listen(#[from] crate::identity::listener::ListenError),
    /// The system said no.
    #[error("`{path}`: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
}
