//! From the wire to law's types: every string, list and map has its bound.

use std::collections::BTreeMap;
use std::str::FromStr;

use leasehold_law::caller::{CallerId, Vouched};
use leasehold_law::param::{MAX_LIST, MAX_PARAMS, MAX_TEXT_BYTES, ParamValue, Params};
use leasehold_law::reason::Reason;
use leasehold_law::request::{
    LeaseRequest, Liveness, MAX_PURPOSE_BYTES, MAX_REASON_BYTES, MAX_REF_KEY_BYTES, MAX_REF_VALUE_BYTES,
    MAX_REFS, MAX_TTL, OpenRequest, Refs, RequestId,
};
use leasehold_law::revocation::Selector;
use leasehold_law::scope::{Pair, Scope, ScopeEntry};
use leasehold_law::time::{Span, Timestamp};
use leasehold_proto::v1;

use crate::broker::{MAX_WAIT, Refused};

type Read<T> = Result<T, Refused>;

/// Most rows on one page.
const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;

/// An id, a name or anything else that has one form.
pub(super) fn parse<T>(field: &str, text: &str) -> Read<T>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Refused::field(field, error))
}

/// As [`parse`], where empty means left out.
pub(super) fn parse_optional<T>(field: &str, text: &str) -> Read<Option<T>>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// A person, by what their issuer calls them.
pub(super) fn person(field: &str, text: &str) -> Read<Vouched> {
    match parse(field, text)? {
        CallerId::Person(person) => Ok(person),
        CallerId::Agent(_)
        | CallerId::LocalUser(_)
        | CallerId::CiJob(_)
        | CallerId::KubeAccount(_)
        | CallerId::PersonalAgent(_)
        | CallerId::Drill => Err(Refused::field(field, "is no person; write oidc:ISSUER|SUBJECT")),
    }
}

/// Text for people: bounded, and free of characters that steer a terminal.
pub(super) fn text(field: &str, text: String, max: usize) -> Read<String> {
    if text.len() > max {
        return Err(Refused::field(field, format!("takes at most {max} bytes; this is {}", text.len())));
    }
    match text.chars().find(|c| c.is_control() || is_bidi_control(*c)) {
        Some(c) => Err(Refused::field(field, format!("holds the control character U+{:04X}", u32::from(c)))),
        None => Ok(text),
    }
}

/// Characters that make text read other than it is written (Unicode UAX 9, section 2).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A reason that an operator gives: required.
pub(super) fn reason(given: String) -> Read<String> {
    if given.trim().is_empty() {
        return Err(Refused::field("reason", "say why: it goes on record"));
    }
    text("reason", given, MAX_REASON_BYTES)
}

/// A span that may be left out.
pub(super) fn span(field: &str, duration: Option<prost_types::Duration>) -> Read<Option<Span>> {
    let Some(duration) = duration else { return Ok(None) };
    // Not by prost's own conversion: what it does with seconds near the least number differs between builds.
    match (u64::try_from(duration.seconds), u32::try_from(duration.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => {
            Ok(Some(Span::from(std::time::Duration::new(seconds, nanos))))
        }
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(Refused::field(field, "must be a span of 0 or more")),
    }
}

/// A lifetime that may be left out: more than nothing, at most a day.
pub(super) fn ttl(field: &str, duration: Option<prost_types::Duration>) -> Read<Option<Span>> {
    match span(field, duration)? {
        Some(ttl) if ttl < Span::from_secs(1) => Err(Refused::field(field, "must be at least 1s")),
        Some(ttl) if ttl > MAX_TTL => Err(Refused::field(field, format!("must be at most {MAX_TTL}"))),
        other => Ok(other),
    }
}

/// How long a call waits: 0 to 30 s.
pub(super) fn wait(duration: Option<prost_types::Duration>) -> Read<Span> {
    let wait = span("wait", duration)?.unwrap_or(Span::ZERO);
    if wait > MAX_WAIT {
        Err(Refused::field("wait", format!("must be at most {MAX_WAIT}")))
    } else {
        Ok(wait)
    }
}

/// A moment that may be left out.
pub(super) fn moment(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.map(|at| Timestamp(at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos) / 1_000_000)))
}

/// How many rows a page has.
pub(super) fn page_size(asked: i32) -> Read<usize> {
    match usize::try_from(asked) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) if size <= MAX_PAGE => Ok(size),
        Ok(_) | Err(_) => Err(Refused::field("page_size", format!("must be 0 to {MAX_PAGE}"))),
    }
}

/// A pair out of its two halves.
pub(super) fn pair(intent: &str, target: &str) -> Read<Pair> {
    parse("intent", &format!("{intent}@{target}"))
}

/// Parameters within bounds; whether they fit the intent is judged further in.
pub(super) fn params(wire: BTreeMap<String, v1::ParamValue>) -> Read<Params> {
    if wire.len() > MAX_PARAMS {
        return Err(Refused::field("params", format!("takes at most {MAX_PARAMS}")));
    }
    wire.into_iter().map(|(name, value)| Ok((text("params", name, MAX_TEXT_BYTES)?, param(value)?))).collect()
}

fn param(value: v1::ParamValue) -> Read<ParamValue> {
    use v1::param_value::Kind;
    match value.kind {
        Some(Kind::StringValue(value)) => Ok(ParamValue::String(text("params", value, MAX_TEXT_BYTES)?)),
        Some(Kind::IntValue(value)) => Ok(ParamValue::Int(value)),
        Some(Kind::BoolValue(value)) => Ok(ParamValue::Bool(value)),
        Some(Kind::ListValue(list)) if list.values.len() > MAX_LIST => {
            Err(Refused::field("params", format!("a list takes at most {MAX_LIST} items")))
        }
        Some(Kind::ListValue(list)) => {
            let items = list.values.into_iter().map(|item| text("params", item, MAX_TEXT_BYTES));
            Ok(ParamValue::List(items.collect::<Read<_>>()?))
        }
        None => Err(Refused::field("params", "a parameter has no value")),
    }
}

/// A scope.
pub(super) fn scope(wire: Vec<v1::ScopePair>) -> Read<Scope> {
    if wire.len() > Scope::MAX {
        return Err(Refused::field("scope", leasehold_law::scope::ScopeError::TooMany(wire.len())));
    }
    let entries = wire.into_iter().map(|entry| {
        Ok(ScopeEntry {
            pair: parse("scope", &format!("{}@{}", entry.intent, entry.target))?,
            max_ttl: ttl("scope.max_ttl", entry.max_ttl)?,
            params: params(entry.params)?,
        })
    });
    Scope::new(entries.collect::<Read<_>>()?).map_err(|error| Refused::field("scope", error))
}

/// References.
pub(super) fn refs(wire: BTreeMap<String, String>) -> Read<Refs> {
    if wire.len() > MAX_REFS {
        return Err(Refused::field("refs", format!("takes at most {MAX_REFS}")));
    }
    let one =
        |(key, value)| Ok((text("refs", key, MAX_REF_KEY_BYTES)?, text("refs", value, MAX_REF_VALUE_BYTES)?));
    wire.into_iter().map(one).collect()
}

/// How long a task may last: more than nothing; whether it is too long, the broker knows.
fn deadline(duration: Option<prost_types::Duration>) -> Read<Option<Span>> {
    match span("deadline", duration)? {
        Some(deadline) if deadline < Span::from_secs(1) => {
            Err(Refused::field("deadline", "must be at least 1s"))
        }
        other => Ok(other),
    }
}

/// What holds a task; a grace that is left out is this one.
pub(super) fn liveness(wire: Option<v1::Liveness>, default_grace: Span) -> Read<Liveness> {
    use v1::liveness::Kind;
    match wire.and_then(|liveness| liveness.kind) {
        Some(Kind::Deadline(_)) => Ok(Liveness::Deadline),
        Some(Kind::Heartbeat(heartbeat)) => {
            let grace = span("liveness.heartbeat.grace", heartbeat.grace)?.unwrap_or(default_grace);
            if (Liveness::MIN_GRACE..=Liveness::MAX_GRACE).contains(&grace) {
                Ok(Liveness::Heartbeat { grace })
            } else {
                let (min, max) = (Liveness::MIN_GRACE, Liveness::MAX_GRACE);
                Err(Refused::field("liveness.heartbeat.grace", format!("must be {min} to {max}")))
            }
        }
        None => Err(Refused::field("liveness", "say what holds the task: heartbeats, or its deadline alone")),
    }
}

/// A request to open a task.
pub(super) fn open_request(wire: v1::OpenTaskRequest, default_grace: Span) -> Read<OpenRequest> {
    not_served_yet("parent", !wire.parent.is_empty())?;
    not_served_yet("incident", !wire.incident.is_empty())?;
    Ok(OpenRequest {
        request_id: request_id(&wire.request_id)?,
        purpose: text("purpose", wire.purpose, MAX_PURPOSE_BYTES)?,
        scope: scope(wire.scope)?,
        liveness: liveness(wire.liveness, default_grace)?,
        deadline: deadline(wire.deadline)?,
        refs: refs(wire.refs)?,
        on_behalf_of: None,
        manifest: wire.manifest.map(|said| parse("manifest.fingerprint", &said.fingerprint)).transpose()?,
    })
}

/// A field that is there from the first day, so that no server drops it in silence, and is not served yet.
fn not_served_yet(field: &str, present: bool) -> Read<()> {
    if present {
        return Err(Refused::new(Reason::NotServed, format!("field {field} is not served yet")));
    }
    Ok(())
}

fn request_id(given: &str) -> Read<RequestId> {
    parse("request_id", given)
}

/// A request for a lease. An attempt that is left out is the first.
pub(super) fn lease_request(wire: v1::RequestLeaseRequest) -> Read<LeaseRequest> {
    Ok(LeaseRequest {
        task: parse("task", &wire.task)?,
        pair: pair(&wire.intent, &wire.target)?,
        params: params(wire.params)?,
        ttl: ttl("ttl", wire.ttl)?,
        request_id: request_id(&wire.request_id)?,
        attempt: wire.attempt.max(1),
    })
}

/// A name, not empty.
fn named(field: &str, name: String) -> Read<String> {
    text(field, given(field, name)?, MAX_TEXT_BYTES)
}

fn given(field: &str, name: String) -> Read<String> {
    if name.is_empty() { Err(Refused::field(field, "must not be empty")) } else { Ok(name) }
}

/// What a revocation takes; `person` knows whom a text means.
pub(super) fn selector(
    wire: Option<v1::Selector>,
    person: impl FnOnce(&str) -> Read<Vouched>,
) -> Read<Selector> {
    use v1::selector::Kind;
    let not_served = |what: &str| {
        Err(Refused::new(Reason::NotServed, format!("revoking by {what} is not served yet"))
            .next("revoke by lease, task, agent, owner, person, target, intent, ref or all"))
    };
    match wire.and_then(|selector| selector.kind) {
        Some(Kind::Lease(id)) => Ok(Selector::Lease(parse("selector.lease", &id)?)),
        Some(Kind::Task(id)) => Ok(Selector::Task(parse("selector.task", &id)?)),
        Some(Kind::Agent(id)) => Ok(Selector::Agent(parse("selector.agent", &id)?)),
        Some(Kind::Owner(owner)) => Ok(Selector::Owner(parse("selector.owner", &owner)?)),
        Some(Kind::Person(name)) => person(&named("selector.person", name)?).map(Selector::Person),
        Some(Kind::Target(name)) => Ok(Selector::Target(named("selector.target", name)?)),
        Some(Kind::Intent(name)) => Ok(Selector::Intent(named("selector.intent", name)?)),
        Some(Kind::Ref(found)) => Ok(Selector::Ref {
            key: text("selector.ref.key", given("selector.ref.key", found.key)?, MAX_REF_KEY_BYTES)?,
            value: text("selector.ref.value", found.value, MAX_REF_VALUE_BYTES)?,
        }),
        Some(Kind::Incident(_)) => not_served("incident"),
        Some(Kind::All(_)) => Ok(Selector::All),
        None => Err(Refused::field("selector", "say what to revoke")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_bounded_and_cannot_steer_a_terminal() {
        let check = |given: &str, good: bool| {
            assert_eq!(text("purpose", given.to_owned(), 16).is_ok(), good, "{given:?}");
        };
        check("fix the orders", true);
        check("Größe ✓", true);
        check("seventeen letters", false);
        check("a\u{1b}[2J", false);
        check("a\u{202e}b", false);
        check("a\nb", false);
    }

    #[test]
    fn lifetimes_are_more_than_nothing_and_at_most_a_day() {
        let check = |seconds: i64, nanos: i32, good: bool| {
            let wire = Some(prost_types::Duration { seconds, nanos });
            assert_eq!(ttl("ttl", wire).is_ok(), good, "{seconds}");
        };
        check(1, 0, true);
        check(86_400, 0, true);
        for (seconds, nanos) in [(0, 0), (0, 5), (-1, 0), (86_401, 0), (i64::MAX, 0), (i64::MIN, 0)] {
            check(seconds, nanos, false);
        }
        assert_eq!(ttl("ttl", None).unwrap(), None);
    }
}
