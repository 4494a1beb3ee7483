//! Rules for jobs and what issuers publish, and any text as either.

pub(crate) mod ci {
    pub(crate) use super::rule::{Scalar, Want, Wanted};
}

#[path = "../../src/identity/issuer/address.rs"]
mod address;
#[path = "../../src/identity/issuer/discovery.rs"]
mod discovery;
#[path = "../../src/identity/ci/rule.rs"]
mod rule;

use serde_json::{Map, Value};
use url::Url;

use crate::config::wants;
use address::IssuerUrl;
use discovery::Endpoints;
use rule::{Rule, Wanted};

/// Stands between the parts of an input.
const NEXT: &str = "\n%%\n";

/// Two rules and a job: a job that fits both is one that the rules are known to share, and no pattern goes further than it
/// says.
pub fn any_rules(text: &str) {
    let mut parts = text.splitn(3, NEXT);
    let mut rule = |name: &str| {
        let wants = wants(parts.next()?)?;
        let id = format!("ci:issuer|{name}").parse().ok()?;
        Some(Rule { name: name.to_owned(), issuer: "issuer".to_owned(), id, wants })
    };
    let (Some(one), two) = (rule("one"), rule("two")) else { return };
    let claims: Map<String, Value> =
        parts.next().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let fits = |rule: &Rule| match rule.misfit(|name| claims.get(name)) {
        None => true,
        Some(misfit) => {
            assert!(misfit.fitting < rule.wants.len() && misfit.to_string().contains(&rule.name));
            false
        }
    };
    if fits(&one) {
        stays_within(&one, &claims);
    }
    let Some(two) = two else { return };
    assert_eq!(one.overlaps(&two), two.overlaps(&one), "{one:?} {two:?}");
    assert!(!(fits(&one) && fits(&two)) || one.overlaps(&two), "{claims:?} fits {one:?} and {two:?}");
}

/// Without `**` a pattern takes in as many parts of a name as it has itself.
fn stays_within(rule: &Rule, claims: &Map<String, Value>) {
    let parts = |text: &str| text.matches('/').count();
    for want in &rule.wants {
        let (Wanted::Like(pattern), Some(text)) = (&want.wanted, claims.get(&want.claim)) else { continue };
        let (pattern, text) = (pattern.as_str(), text.as_str().unwrap_or_default());
        assert!(pattern.contains("**") || parts(pattern) == parts(text), "{pattern} takes in {text}");
    }
}

/// Any text is an issuer, and a document of one, or refused; and nothing in it leads away from `https`.
pub fn any_discovery(text: &str) {
    if let Ok(url) = text.parse::<IssuerUrl>() {
        assert_eq!(url.to_string(), text);
        let asked: Url = url.discovery().parse().expect("a URL");
        assert!(asked.scheme() == "https" && asked.username().is_empty() && asked.password().is_none());
        assert!(asked.query().is_none() && asked.fragment().is_none(), "{asked}");
    }
    let issuer: IssuerUrl = "https://idp.example".parse().expect("an issuer");
    let Ok(found) = Endpoints::read(text.as_bytes(), &issuer) else { return };
    let all = [Some(found.keys), found.authorization, found.token, found.device_authorization];
    assert!(all.iter().flatten().all(|url| url.scheme() == "https"), "{all:?}");
}
