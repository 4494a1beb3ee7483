//! People: the ID tokens that an OpenID issuer gives the CLI (OpenID Connect Core 1.0 section 2).

use std::collections::BTreeSet;
use std::path::PathBuf;

use async_trait::async_trait;
use leasehold_jose::{Claims, Peek, Rules};
use leasehold_law::behalf::OnBehalfOf;
use leasehold_law::caller::{CallerId, ProvenBy, Vouched};
use leasehold_law::time::{Span, Timestamp};
use serde_json::Value;

use super::Now;
use super::bearer::{PersonSession, TokenKind, TokenRefused, Vouch};
use super::issuer::{Issuer, IssuerError, IssuerUrl, KeySource};
use super::on_behalf_of::{Delegation, Subject};

/// Whose ID tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeopleSettings {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// What the CLI is called there, and so the one audience.
    pub client_id: String,
    /// Whom the issuer's own certificate must be from, instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The longest that a token may live.
    pub max_life: Span,
    /// The claim that lists groups, and those of them that mean something here.
    pub groups: Option<(String, BTreeSet<String>)>,
    /// The tokens with which agents act for people, if any are taken.
    pub on_behalf_of: Option<Delegation>,
}

/// ID tokens of one issuer, for one client.
#[derive(Debug)]
pub struct PeopleTokens {
    issuer: Issuer,
    settings: PeopleSettings,
}

impl PeopleTokens {
    /// Dials nothing: the issuer is asked when its first token comes.
    ///
    /// # Errors
    /// Where its certificates cannot be read.
    pub fn new(settings: PeopleSettings, now: Now) -> Result<Self, IssuerError> {
        let keys = KeySource::Discovery { ca_file: settings.ca_file.clone() };
        Ok(Self { issuer: Issuer::new(settings.issuer.clone(), &keys, now)?, settings })
    }

    /// Whether a token that says this of itself is one with which an agent acts for a person.
    pub(super) fn is_subject(&self, peek: &Peek) -> bool {
        let ours = peek.issuer.as_deref() == Some(self.settings.issuer.as_str());
        let taken = self.settings.on_behalf_of.as_ref();
        ours && taken.is_some_and(|taken| peek.audiences.contains(&taken.audience))
    }

    /// Verifies such a token, and that it was given to this agent.
    pub(super) async fn verify_subject(
        &self,
        token: &str,
        peek: &Peek,
        agent: &CallerId,
        now: Timestamp,
    ) -> Result<Subject, TokenRefused> {
        let PeopleSettings { issuer, max_life, .. } = &self.settings;
        let taken = self.settings.on_behalf_of.as_ref();
        let taken = taken.ok_or_else(|| TokenRefused::new("no such tokens are taken", "ask an operator"))?;
        let (audience, max_life) = (taken.audience.as_str(), *max_life);
        let rules = Rules { issuer: None, audience, max_life, access_token: true, now };
        let claims = self.issuer.verify(token, peek, rules).await?;
        taken.names(&claims, issuer.as_str(), agent)?;
        let on_behalf_of = OnBehalfOf { person: self.person(&claims)?, until: Some(claims.expires_at()) };
        Ok(Subject { on_behalf_of, issued_at: claims.issued_at() })
    }

    fn person(&self, claims: &Claims) -> Result<Vouched, TokenRefused> {
        Vouched::new(self.settings.issuer.as_str(), claims.subject()).map_err(|_| {
            let what = "the token's `sub` is not up to 255 visible ASCII characters";
            TokenRefused::new(what, "have your issuer name people so (OpenID Connect Core 1.0 section 2)")
        })
    }

    fn session(&self, claims: &Claims) -> PersonSession {
        let seconds = claims.claim("auth_time").and_then(Value::as_i64);
        let signed_in_at = seconds.map(|seconds| Timestamp(seconds.saturating_mul(1000)));
        let groups = self.settings.groups.as_ref().map(|(claim, known)| {
            let told = texts(claims.claim(claim));
            known.iter().filter(|group| told.contains(&group.as_str())).cloned().collect()
        });
        PersonSession { signed_in_at, groups: groups.unwrap_or_default() }
    }
}

#[async_trait]
impl TokenKind for PeopleTokens {
    fn is_mine(&self, peek: &Peek) -> bool {
        let PeopleSettings { issuer, client_id, .. } = &self.settings;
        peek.issuer.as_deref() == Some(issuer.as_str()) && peek.audiences.contains(client_id)
    }

    async fn verify(&self, token: &str, peek: &Peek, now: Timestamp) -> Result<Vouch, TokenRefused> {
        let PeopleSettings { client_id, max_life, .. } = &self.settings;
        let (audience, max_life) = (client_id.as_str(), *max_life);
        let rules = Rules { issuer: None, audience, max_life, access_token: false, now };
        let claims = self.issuer.verify(token, peek, rules).await?;
        // Core 1.0 section 3.1.3.7: a token that the issuer gave to another program is that program's.
        if claims.claim("azp").is_some_and(|azp| azp.as_str() != Some(client_id)) {
            let next = "sign in with the client that the broker's config names: leasehold login";
            return Err(TokenRefused::new("the token was given to another program than this one", next));
        }
        Ok(Vouch {
            id: CallerId::Person(self.person(&claims)?),
            proven_by: ProvenBy::Person,
            issued_at: claims.issued_at(),
            expires_at: claims.expires_at(),
            session: Some(self.session(&claims)),
        })
    }
}

/// One text, or a list of them; anything else says nothing.
fn texts(claim: Option<&Value>) -> BTreeSet<&str> {
    match claim {
        Some(Value::String(one)) => BTreeSet::from([one.as_str()]),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_are_texts_and_nothing_else() {
        let check = |claim: Value, expect: &[&str]| {
            assert_eq!(texts(Some(&claim)), expect.iter().copied().collect(), "{claim}");
        };
        check(json!(["a", "b"]), &["a", "b"]);
        check(json!("a"), &["a"]);
        check(json!([1, null, "a", ["b"]]), &["a"]);
        check(json!({ "a": true }), &[]);
        check(json!(true), &[]);
    }
}
