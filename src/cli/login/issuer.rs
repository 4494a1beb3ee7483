//! An issuer as its discovery document shows it, and what it grants, verified (OpenID Connect Core 1.0, Discovery 1.0).

use std::fmt::{self, Display};
use std::time::SystemTime;

use leasehold_jose::{Claims, Keys, Rules, token};
use leasehold_law::time::{Span, Timestamp};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthUrl, ClientId, DeviceAuthorizationUrl, EndpointMaybeSet, EndpointNotSet, EndpointSet, ErrorResponse,
    ExtraTokenFields, RefreshToken, RequestTokenError, RevocationUrl, Scope, StandardRevocableToken,
    StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use serde::{Deserialize, Serialize};

use super::hidden::Hidden;
use super::http::{Http, HttpError};
use super::provider::Provider;
use crate::cli::problem::{Exit, Problem};

/// The longest that an ID token may live here. The broker's own bound is what counts.
const MAX_LIFE: Span = Span::from_mins(7 * 24 * 60);
/// The most of an issuer's own words that is repeated, in characters.
const MAX_WORDS: usize = 300;
/// What asks for a token to renew the session with (OpenID Connect Core 1.0, section 11).
const OFFLINE: &str = "offline_access";

/// What the protocol's library knows of an issuer.
pub(super) type Protocol = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointMaybeSet,
    EndpointMaybeSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointSet,
>;

/// What the token endpoint answers.
pub(super) type Tokens = StandardTokenResponse<IdToken, BasicTokenType>;

/// What OpenID Connect adds to it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdToken").finish_non_exhaustive()
    }
}

/// What an issuer says of itself.
#[derive(Clone, Debug, Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// An issuer that answers.
pub(super) struct Issuer {
    pub(super) provider: Provider,
    pub(super) protocol: Protocol,
    pub(super) http: Http,
    document: Document,
}

/// What an issuer granted: who signed in, until when.
pub(super) struct Granted {
    pub(super) subject: String,
    pub(super) expires_at: Timestamp,
    pub(super) id_token: Hidden,
    pub(super) refresh_token: Option<Hidden>,
}

impl Issuer {
    /// Reads the discovery document of an issuer, which must be that very one (Discovery 1.0, section 4.3).
    pub(super) async fn discover(provider: Provider) -> Result<Self, Problem> {
        let http = Http::new(provider.ca_file.as_deref())?;
        let url = format!("{}/.well-known/openid-configuration", provider.issuer.trim_end_matches('/'));
        let body = http.fetch(&url).await?;
        let document: Document = serde_json::from_slice(&body)
            .map_err(|error| unusable(&provider.issuer, format!("`{url}`: {error}")))?;
        if document.issuer != provider.issuer {
            let why = format!("it calls itself `{}`", printable(&document.issuer));
            return Err(
                unusable(&provider.issuer, why).next("write the issuer as it writes itself, to the letter")
            );
        }
        let protocol = protocol(&provider, &document).map_err(|why| unusable(&provider.issuer, why))?;
        Ok(Self { provider, protocol, http, document })
    }

    /// What is asked for: `offline_access` only of those who know it, since others refuse the whole of it.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let mut words = vec!["openid".to_owned()];
        words.extend(self.asks_to_renew().then(|| OFFLINE.to_owned()));
        let more = self.provider.scopes.iter().filter(|word| *word != OFFLINE && *word != "openid");
        words.extend(more.cloned());
        words.into_iter().map(Scope::new).collect()
    }

    /// Whether a token to renew with is asked for.
    pub(super) fn asks_to_renew(&self) -> bool {
        let is_it = |word: &String| word == OFFLINE;
        self.document.scopes_supported.iter().any(is_it) || self.provider.scopes.iter().any(is_it)
    }

    /// Whether people can sign in with a code on another device.
    pub(super) fn has_device_flow(&self) -> bool {
        self.document.device_authorization_endpoint.is_some()
    }

    /// Whether answers to a browser name the issuer (RFC 9207).
    pub(super) fn names_itself(&self) -> bool {
        self.document.authorization_response_iss_parameter_supported
    }

    /// Verifies what the token endpoint answered. `nonce` is what the request held, where it could hold one.
    pub(super) async fn granted(&self, tokens: Tokens, nonce: Option<&str>) -> Result<Granted, Problem> {
        let id_token = tokens.extra_fields().id_token.clone().map(Hidden::new).ok_or_else(|| {
            unusable(&self.provider.issuer, "it gave no ID token")
                .next("register this program there as a client of OpenID Connect")
        })?;
        let claims = self.verified(&id_token).await?;
        if nonce.is_some_and(|nonce| claims.text("nonce") != Some(nonce)) {
            return Err(unusable(
                &self.provider.issuer,
                "its ID token answers another sign-in than this one",
            ));
        }
        let refresh_token = tokens.refresh_token().map(|token| Hidden::new(token.secret().clone()));
        let (subject, expires_at) = (claims.subject().to_owned(), claims.expires_at());
        Ok(Granted { subject, expires_at, id_token, refresh_token })
    }

    async fn verified(&self, id_token: &Hidden) -> Result<Claims, Problem> {
        let refused = |why: &dyn Display| unusable(&self.provider.issuer, why.to_string());
        let keys =
            Keys::parse(&self.http.fetch(&self.document.jwks_uri).await?).map_err(|why| refused(&why))?;
        let (issuer, audience) = (Some(self.provider.issuer.as_str()), self.provider.client_id.as_str());
        let rules = Rules { issuer, audience, max_life: MAX_LIFE, access_token: false, now: now() };
        token::read(id_token.expose(), &keys, &rules).map_err(|why| refused(&why))
    }

    /// Renews what an issuer granted: what it answers, not verified yet, and what to renew with next, if that changed. The
    /// one before it may be spent by now.
    pub(super) async fn renewed(&self, with: &Hidden) -> Result<(Tokens, Option<Hidden>), Problem> {
        let with = RefreshToken::new(with.expose().to_owned());
        let tokens = self.protocol.exchange_refresh_token(&with).request_async(&self.http).await;
        let tokens = tokens.map_err(|error| self.refused(&error))?;
        let next = tokens.refresh_token().map(|token| Hidden::new(token.secret().clone()));
        Ok((tokens, next))
    }

    /// Has the issuer forget a token to renew with (RFC 7009); whether it can be asked to.
    pub(super) async fn revoke(&self, refresh_token: &Hidden) -> Result<bool, Problem> {
        if self.document.revocation_endpoint.is_none() {
            return Ok(false);
        }
        let token = RefreshToken::new(refresh_token.expose().to_owned());
        let request = self.protocol.revoke_token(StandardRevocableToken::RefreshToken(token));
        let request = request.map_err(|error| unusable(&self.provider.issuer, error.to_string()))?;
        request.request_async(&self.http).await.map(|()| true).map_err(|error| self.refused(&error))
    }

    /// What an issuer's refusal means to the person who signs in. An answer that cannot be read may hold a token, and is
    /// not repeated.
    pub(super) fn refused<E: ErrorResponse + Display + 'static>(
        &self,
        error: &RequestTokenError<HttpError, E>,
    ) -> Problem {
        let issuer = &self.provider.issuer;
        match error {
            RequestTokenError::ServerResponse(answer) => {
                Problem::new(Exit::DENIED, format!("`{issuer}` refuses"))
                    .why(printable(&answer.to_string()))
                    .next("sign in anew: leasehold login")
            }
            RequestTokenError::Request(error) => {
                Problem::new(Exit::UNREACHABLE, format!("`{issuer}` cannot be reached"))
                    .why(error.to_string())
            }
            RequestTokenError::Parse(error, _) => {
                unusable(issuer, format!("its answer cannot be read, at `{}`", error.path()))
            }
            RequestTokenError::Other(what) => unusable(issuer, printable(what)),
        }
    }
}

fn protocol(provider: &Provider, document: &Document) -> Result<Protocol, String> {
    let secure = |url: &String| match url.starts_with("https://") {
        true => Ok(url.clone()),
        false => Err(format!("it names an endpoint without https: `{}`", printable(url))),
    };
    let wrong = |error: url::ParseError| format!("it names an endpoint that is no URL: {error}");
    let optional = |url: &Option<String>| url.as_ref().map(secure).transpose();
    let browser = optional(&document.authorization_endpoint)?.map(AuthUrl::new).transpose().map_err(wrong)?;
    let device = optional(&document.device_authorization_endpoint)?.map(DeviceAuthorizationUrl::new);
    let revoke = optional(&document.revocation_endpoint)?.map(RevocationUrl::new);
    let token = TokenUrl::new(secure(&document.token_endpoint)?).map_err(wrong)?;
    Ok(oauth2::Client::new(ClientId::new(provider.client_id.clone()))
        .set_auth_uri_option(browser)
        .set_device_authorization_url_option(device.transpose().map_err(wrong)?)
        .set_revocation_url_option(revoke.transpose().map_err(wrong)?)
        .set_token_uri(token))
}

pub(super) fn unusable(issuer: &str, why: impl Into<Box<str>>) -> Problem {
    Problem::failed(format!("`{issuer}` cannot be used to sign in")).why(why)
}

/// The words of somebody else, without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_WORDS).collect()
}

/// The time on this machine.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
