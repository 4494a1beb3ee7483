//! What an issuer's discovery document says (OpenID Connect Discovery 1.0).

use serde_json::{Map, Value};
use url::Url;

use super::address::IssuerUrl;

/// What discovery names beside the keys (OpenID Connect Discovery 1.0 section 3, RFC 8628 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Its JWK set.
    pub keys: Url,
    /// Where people sign in.
    pub authorization: Option<Url>,
    /// Where codes become tokens.
    pub token: Option<Url>,
    /// Where a device without a browser begins.
    pub device_authorization: Option<Url>,
}

impl Endpoints {
    /// Whether people can sign in there, with a browser here or a code on another device.
    #[must_use]
    pub fn lets_people_in(&self) -> bool {
        self.token.is_some() && (self.authorization.is_some() || self.device_authorization.is_some())
    }

    /// Reads a discovery document, which must be this issuer's own to the letter (section 4.3).
    pub(super) fn read(document: &[u8], url: &IssuerUrl) -> Result<Self, String> {
        let document: Map<String, Value> =
            serde_json::from_slice(document).map_err(|_| "its discovery document is not a JSON object")?;
        let said = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if said != url.as_str() {
            let said: String = said.escape_debug().take(256).collect();
            return Err(format!(
                "its discovery document calls it `{said}`; that must be the same to the letter"
            ));
        }
        let keys = endpoint(&document, "jwks_uri")?;
        Ok(Self {
            keys: keys.ok_or("its discovery document has no `jwks_uri`")?,
            authorization: endpoint(&document, "authorization_endpoint")?,
            token: endpoint(&document, "token_endpoint")?,
            device_authorization: endpoint(&document, "device_authorization_endpoint")?,
        })
    }
}

/// An endpoint, which may be on another host and is always `https`.
fn endpoint(document: &Map<String, Value>, name: &str) -> Result<Option<Url>, String> {
    let Some(value) = document.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let url = value.as_str().and_then(|text| Url::parse(text).ok());
    match url.filter(|url| url.scheme() == "https") {
        Some(url) => Ok(Some(url)),
        None => Err(format!("its discovery document names a `{name}` that is not an https URL")),
    }
}
