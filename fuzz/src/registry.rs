//! Patterns and digests of the registry, and any text as either.

#[path = "../../sdk/rust/src/manifest.rs"]
mod manifest;

use leasehold_law::caller::CallerId;
use leasehold_law::manifest::Digest;
use leasehold_law::registry::{Pattern, Who};
use manifest::Manifest;
use serde_json::Value;

/// Two patterns and an identity, a line each: a pattern takes in nothing but one segment that goes on, and two that take in
/// the same are known to.
pub fn any_patterns(text: &str) {
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (one, two, id) = (line(), line(), line());
    if let Ok(who) = one.parse::<Who>() {
        assert_eq!(who.to_string(), one);
    }
    let Ok(one) = one.parse::<Pattern>() else { return };
    let id = id.parse::<CallerId>().ok();
    if let Some(id) = id.as_ref().filter(|id| one.matches(id)) {
        takes_in(&one, &id.to_string());
    }
    let Ok(two) = two.parse::<Pattern>() else { return };
    assert_eq!(one.overlaps(&two), two.overlaps(&one), "{one} {two}");
    let both = id.is_some_and(|id| one.matches(&id) && two.matches(&id));
    assert!(!both || one.overlaps(&two), "{one} {two}");
}

fn takes_in(pattern: &Pattern, id: &str) {
    let stem = pattern.to_string();
    let stem = stem.trim_end_matches('*');
    assert!(id.starts_with(stem) && id.len() > stem.len(), "{pattern} takes in {id}");
    assert_eq!(id.matches('/').count(), stem.matches('/').count(), "{pattern} takes in {id}");
    assert!(id.starts_with(&format!("spiffe://{}/", pattern.trust_domain())), "{pattern} takes in {id}");
}

/// A digest has one form, and what an agent's own program makes of any manifest is one, over JSON that says the same.
pub fn any_manifest(text: &str) {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    let mut lines = text.split('\n');
    let model = lines.next().unwrap_or_default();
    let tools: Vec<_> = lines.collect();
    let made = tools.iter().fold(Manifest::new(model), |made, tool| made.tool(*tool, tool));
    assert!(made.digest().parse::<Digest>().is_ok());
    let json: Value = serde_json::from_str(&made.canonical()).expect("JSON");
    assert_eq!(json["model"].as_str(), Some(model));
    let named = json["tools"].as_object().expect("tools");
    assert!(tools.iter().all(|tool| named.contains_key(*tool)), "{json}");
}
