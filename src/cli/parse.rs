//! What people write: durations, key=value, pairs with options.

use std::time::Duration;

use leasehold_client::{Pair, v1::param_value::Kind};

/// `10m`, `1h30m`, `45s`, `500ms`: whole numbers with units, each once and falling, more than nothing together.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration such as 45s, 10m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis = unit_millis(unit).filter(|&unit| unit < last).ok_or_else(bad)?;
        let part = number.parse::<u64>().ok().and_then(|count| count.checked_mul(millis)).ok_or_else(bad)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(bad)?;
        (rest, last) = (tail, millis);
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

/// The longest lifetime that a broker takes, in a request or a scope.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A lifetime: a duration up to a day, the broker's limit.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|ttl| match ttl <= MAX_TTL {
        true => Ok(ttl),
        false => {
            Err(format!("`{text}` is more than 1d, the longest that is asked for; the grant may give less"))
        }
    })
}

fn unit_millis(unit: &str) -> Option<u64> {
    Some(match unit {
        "d" => 86_400_000,
        "h" => 3_600_000,
        "m" => 60_000,
        "s" => 1000,
        "ms" => 1,
        _ => return None,
    })
}

/// A wait, which may be nothing: `0` or a duration up to 30 s, the broker's limit.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") {
        return Ok(Duration::ZERO);
    }
    duration(text).and_then(|wait| match wait <= Duration::from_secs(30) {
        true => Ok(wait),
        false => Err("at most 30s; the broker goes on in any case".to_owned()),
    })
}

/// `KEY=VALUE`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// A moment as RFC 3339 writes it.
pub(crate) fn moment(text: &str) -> Result<prost_types::Timestamp, String> {
    text.parse().map_err(|_| format!("`{text}` is not a time such as 2026-01-31T02:13:00Z"))
}

/// The value of a parameter by its looks: a whole number, `true` or `false`, `[a|b]` for a list, else text; in
/// quotation marks always text.
pub(crate) fn param_value(text: &str) -> Kind {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    if let Some(text) = quoted {
        return Kind::StringValue(text.to_owned());
    }
    if let Ok(number) = text.parse() {
        return Kind::IntValue(number);
    }
    if let Ok(flag) = text.parse() {
        return Kind::BoolValue(flag);
    }
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(list) => {
            let values = list.split('|').filter(|value| !value.is_empty()).map(str::to_owned).collect();
            Kind::ListValue(leasehold_client::v1::StringList { values })
        }
        None => Kind::StringValue(text.to_owned()),
    }
}

/// `INTENT@TARGET`, for clap.
pub(crate) fn pair(text: &str) -> Result<Pair, String> {
    text.parse().map_err(|error: leasehold_client::PairError| error.to_string())
}

/// `PAIR[,ttl=10m][,param.KEY=VALUE]`, for scopes and `exec`.
pub(crate) fn narrowed_pair(text: &str) -> Result<Pair, String> {
    let mut parts = text.split(',');
    let mut pair = pair(parts.next().unwrap_or_default())?;
    for part in parts {
        let (key, value) = key_value(part)?;
        pair = match key.strip_prefix("param.") {
            Some(name) if !name.is_empty() => pair.param(name, param_value(&value)),
            None if key == "ttl" => pair.max_ttl(ttl(&value)?),
            Some(_) | None => return Err(format!("`{part}` is neither ttl=DURATION nor param.KEY=VALUE")),
        };
    }
    Ok(pair)
}

/// A pair and the name that prefixes its variables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamedPair {
    /// The prefix, if one was given.
    pub name: Option<String>,
    /// The pair.
    pub pair: Pair,
}

/// `[NAME=]PAIR[,...]`. A name is what a shell takes as one, since it begins the names of variables.
pub(crate) fn named_pair(text: &str) -> Result<NamedPair, String> {
    let head = text.find('@').unwrap_or(text.len());
    let Some((name, rest)) = text
        .get(..head)
        .and_then(|head| head.split_once('='))
        .map(|(name, _)| (name, text.get(name.len() + 1..).unwrap_or_default()))
    else {
        return Ok(NamedPair { name: None, pair: narrowed_pair(text)? });
    };
    let letters = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(letters) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`{name}` is not a name of upper-case letters, digits and `_`"));
    }
    Ok(NamedPair { name: Some(name.to_owned()), pair: narrowed_pair(rest)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, millis: Option<u64>) {
        assert_eq!(duration(text).ok(), millis.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn a_lifetime_is_no_longer_than_a_broker_takes() {
        assert_eq!(ttl("1d"), Ok(MAX_TTL));
        assert!(ttl("24h1s").is_err() && narrowed_pair("a@db,ttl=1000h").is_err());
    }

    #[test]
    fn durations_are_read_strictly() {
        check_duration("10m", Some(600_000));
        check_duration("1h30m", Some(5_400_000));
        check_duration("1d", Some(86_400_000));
        check_duration("1s500ms", Some(1500));
        for bad in
            ["", "10", "m", "0s", "10m10m", "30m1h", "1 h", "-1s", "1.5h", "99999999999999999999s", "1w"]
        {
            check_duration(bad, None);
        }
    }

    #[test]
    fn a_wait_may_be_nothing_and_is_bounded() {
        assert_eq!(wait("0"), Ok(Duration::ZERO));
        assert_eq!(wait("30s"), Ok(Duration::from_secs(30)));
        assert!(wait("31s").is_err());
    }

    fn check_param(text: &str, expect: &Kind) {
        assert_eq!(&param_value(text), expect, "{text}");
    }

    #[test]
    fn params_are_typed_by_their_looks() {
        check_param("triage", &Kind::StringValue("triage".into()));
        check_param("42", &Kind::IntValue(42));
        check_param("-1", &Kind::IntValue(-1));
        check_param("true", &Kind::BoolValue(true));
        check_param("\"42\"", &Kind::StringValue("42".into()));
        let values = vec!["a".to_owned(), "b".to_owned()];
        check_param("[a|b]", &Kind::ListValue(leasehold_client::v1::StringList { values }));
    }

    fn check_named(text: &str, name: Option<&str>, pair: &str) {
        let read = named_pair(text).unwrap();
        assert_eq!((read.name.as_deref(), read.pair.to_string().as_str()), (name, pair), "{text}");
    }

    #[test]
    fn leases_of_exec_are_read() {
        check_named("a.read@db", None, "a.read@db");
        check_named("ORDERS=a.read@db", Some("ORDERS"), "a.read@db");
        check_named("A=a@db,ttl=10m,param.code=triage", Some("A"), "a@db");
        check_named("a@db,param.code=x", None, "a@db");
        let pair = named_pair("A=a@db,ttl=10m,param.code=triage").unwrap().pair;
        assert_eq!(pair.max_ttl, Some(Duration::from_secs(600)));
        assert_eq!(pair.params["code"].kind, Some(Kind::StringValue("triage".into())));
        for bad in [
            "",
            "a",
            "lower=a@db",
            "1A=a@db",
            "=a@db",
            "a@db,ttl",
            "a@db,ttl=x",
            "a@db,other=1",
            "a@db,param.=1",
        ] {
            assert!(named_pair(bad).is_err(), "{bad}");
        }
    }
}
