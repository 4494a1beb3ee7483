//! What an issuer calls itself, and where it is asked.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// What an issuer calls itself: an `https` URL, which its tokens must hold to the letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssuerUrl {
    text: String,
    url: Url,
}

/// Why a text is no issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an issuer: write it like `https://idp.example`, as it stands in its tokens")]
pub struct IssuerUrlError(String);

impl FromStr for IssuerUrl {
    type Err = IssuerUrlError;
    /// OpenID Connect Core 1.0 section 2: `https`, and neither query nor fragment. Nobody's password is in it.
    fn from_str(text: &str) -> Result<Self, IssuerUrlError> {
        let wrong = || IssuerUrlError(text.chars().take(256).collect());
        let url = Url::parse(text).map_err(|_| wrong())?;
        let plain = url.username().is_empty() && url.password().is_none();
        let bare = url.query().is_none() && url.fragment().is_none();
        let spelt = url.as_str().trim_end_matches('/') == text.trim_end_matches('/');
        if url.scheme() == "https" && plain && bare && spelt && text.len() <= 256 {
            Ok(Self { text: text.to_owned(), url })
        } else {
            Err(wrong())
        }
    }
}

impl IssuerUrl {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it says what it publishes (OpenID Connect Discovery 1.0 section 4).
    pub(super) fn discovery(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.text.trim_end_matches('/'))
    }

    /// Whether it is on this host, where no proxy leads.
    pub(super) fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        }
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
