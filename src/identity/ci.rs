//! Jobs of CI platforms, which come with a token of their platform: whose rule in `[ci_jobs]` they fit, to the letter
//! (RULES R-20). Numeric ids are what rules rest on, since names of owners and repositories can be given to others.

use async_trait::async_trait;
use leasehold_jose::{Claims, Peek, Rules};
use leasehold_law::caller::{CallerId, ProvenBy};
use leasehold_law::time::{Span, Timestamp};

use super::Now;
use super::bearer::{TokenKind, TokenRefused, Vouch};
use super::issuer::{Issuer, IssuerError, IssuerUrl, KeySource};

mod rule;
#[cfg(test)]
mod tests;

pub use rule::{Rule, Scalar, Want, Wanted};

/// Whose tokens they are, which decides what their claims are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// GitHub Actions: ids are numbers written as text.
    Github,
    /// GitLab CI: the same.
    Gitlab,
    /// Any other: rules name the claims themselves.
    Generic,
}

/// An issuer of tokens for jobs: `[identity.ci.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiIssuer {
    /// What config calls it; the first part of the identity of its jobs.
    pub name: String,
    /// Whose it is.
    pub platform: Platform,
    /// What it calls itself.
    pub url: IssuerUrl,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The one audience of its tokens here.
    pub audience: String,
    /// How long its tokens may live.
    pub max_life: Span,
}

/// The tokens of jobs.
#[derive(Debug)]
pub struct CiTokens(Vec<Source>);

/// An issuer with the rules for its jobs.
#[derive(Debug)]
struct Source {
    settings: CiIssuer,
    issuer: Issuer,
    rules: Vec<Rule>,
}

impl CiTokens {
    /// The tokens of these issuers, by these rules. Dials nothing.
    ///
    /// # Errors
    /// Where an issuer could never be asked.
    pub fn new(issuers: &[CiIssuer], rules: &[Rule], now: &Now) -> Result<Self, IssuerError> {
        let source = |settings: &CiIssuer| {
            let issuer = Issuer::new(settings.url.clone(), &settings.keys, now.clone())?;
            let rules = rules.iter().filter(|rule| rule.issuer == settings.name).cloned().collect();
            Ok(Source { settings: settings.clone(), issuer, rules })
        };
        Ok(Self(issuers.iter().map(source).collect::<Result<_, _>>()?))
    }

    fn source(&self, peek: &Peek) -> Option<&Source> {
        self.0.iter().find(|source| source.is_mine(peek))
    }
}

#[async_trait]
impl TokenKind for CiTokens {
    fn is_mine(&self, peek: &Peek) -> bool {
        self.source(peek).is_some()
    }

    async fn verify(&self, token: &str, peek: &Peek, now: Timestamp) -> Result<Vouch, TokenRefused> {
        let stranger = || TokenRefused::new("the token is of no CI platform that is configured", NEXT);
        let source = self.source(peek).ok_or_else(stranger)?;
        let (audience, max_life) = (source.settings.audience.as_str(), source.settings.max_life);
        let rules = Rules { issuer: None, audience, max_life, access_token: false, now };
        let claims = source.issuer.verify(token, peek, rules).await?;
        let id = source.whose(&claims)?.clone();
        let (issued_at, expires_at) = (claims.issued_at(), claims.expires_at());
        Ok(Vouch { id, proven_by: ProvenBy::CiToken, issued_at, expires_at, session: None })
    }
}

/// What a job that fits no rule is told.
const NEXT: &str = "run the job where its rule says, or ask whoever runs this broker for a rule in [ci_jobs]";

impl Source {
    /// People may sign in with the same issuer, save GitHub's, which serves jobs alone: there a wrong audience is a
    /// mistake that is worth naming.
    fn is_mine(&self, peek: &Peek) -> bool {
        peek.issuer.as_deref() == Some(self.settings.url.as_str())
            && (self.settings.platform == Platform::Github
                || peek.audiences.contains(&self.settings.audience))
    }

    /// Whose job this is: the one rule that all of it fits.
    fn whose(&self, claims: &Claims) -> Result<&CallerId, TokenRefused> {
        let mut fitting = self.rules.iter().filter(|rule| rule.misfit(|name| claims.claim(name)).is_none());
        match (fitting.next(), fitting.next()) {
            (Some(rule), None) => Ok(&rule.id),
            (Some(one), Some(two)) => Err(TokenRefused::new(
                format!("two rules in [ci_jobs] fit this job: `{}` and `{}`", one.name, two.name),
                "tell whoever runs this broker",
            )),
            (None, _) => Err(TokenRefused::new(self.nearest(claims), NEXT)),
        }
    }

    /// Why no rule fits, by the one that comes nearest: of which the most claims fit before the first that does not.
    fn nearest(&self, claims: &Claims) -> String {
        let misfits = self.rules.iter().filter_map(|rule| rule.misfit(|name| claims.claim(name)));
        match misfits.max_by(|one, two| one.fitting.cmp(&two.fitting).then(two.rule.cmp(one.rule))) {
            Some(misfit) => format!("no rule in [ci_jobs] fits this job: {misfit}"),
            None => format!("no rule in [ci_jobs] is for the issuer `{}`", self.settings.name),
        }
    }
}
