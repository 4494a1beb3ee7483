//! `backend = "memory"` in config.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_backend::{Backend, BackendKind, Capabilities, Entropy, KindError, Problem};
use leasehold_law::lease::Grade;
use serde_json::{Map, Value};

use crate::backend::{KIND, MemoryBackend};
use crate::recipe::pointer;
use crate::settings::Settings;
use crate::target::MemoryTarget;

/// The kind `memory`. Its table holds `grade = "exact" | "coarse" | "none"`, and for a service on loopback
/// `service = "http://127.0.0.1:PORT"` with `token_file = PATH`; the keys that every target has are not in it.
#[derive(Debug, Default)]
pub struct MemoryKind {
    targets: BTreeMap<String, Arc<MemoryTarget>>,
}

impl MemoryKind {
    /// Opens this target in the same process where config names it and no service; any other starts empty.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, target: Arc<MemoryTarget>) -> Self {
        self.targets.insert(name.into(), target);
        self
    }

    fn in_process(&self, name: &str, grade: Grade, entropy: Arc<dyn Entropy>) -> Arc<dyn Backend> {
        let known = self.targets.get(name).cloned();
        let fresh = || Settings(Capabilities { lasts: false, ..Settings::of(grade).0 });
        let target = known.unwrap_or_else(|| Arc::new(MemoryTarget::new(fresh(), entropy)));
        Arc::new(MemoryBackend::new(target))
    }
}

impl BackendKind for MemoryKind {
    fn name(&self) -> &'static str {
        KIND
    }

    fn check(&self, table: &Map<String, Value>) -> Vec<Problem> {
        parse(table).err().unwrap_or_default()
    }

    fn open(
        &self,
        target: &str,
        table: &Map<String, Value>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Arc<dyn Backend>, KindError> {
        let Table { grade, service } = parse(table)?;
        match service {
            None => Ok(self.in_process(target, grade, entropy)),
            Some(service) => over_http(target, grade, &service),
        }
    }
}

#[cfg(feature = "http")]
fn over_http(target: &str, grade: Grade, service: &Service) -> Result<Arc<dyn Backend>, KindError> {
    use crate::http::{HttpBackend, Token};
    let token = Token::read(&service.token_file).map_err(|what| vec![Problem::new("/token_file", what)])?;
    let backend = HttpBackend::new(target, &service.url, token, Settings::of(grade));
    Ok(Arc::new(backend.map_err(|what| vec![Problem::new("/service", what)])?))
}

#[cfg(not(feature = "http"))]
fn over_http(_target: &str, _grade: Grade, service: &Service) -> Result<Arc<dyn Backend>, KindError> {
    let what = format!("this build does not speak to {} with {}", service.url, service.token_file);
    Err(vec![Problem::new("/service", what)])
}

struct Table {
    grade: Grade,
    service: Option<Service>,
}

struct Service {
    url: String,
    token_file: String,
}

fn parse(table: &Map<String, Value>) -> Result<Table, Vec<Problem>> {
    let mut problems = Vec::new();
    for key in table.keys().filter(|key| !matches!(key.as_str(), "grade" | "service" | "token_file")) {
        let what = "unknown key; a memory target takes `grade`, `service` and `token_file`";
        problems.push(Problem::new(pointer(key), what));
    }
    let grade = grade(table, &mut problems);
    let service = service(table, &mut problems);
    if problems.is_empty() { Ok(Table { grade, service }) } else { Err(problems) }
}

fn grade(table: &Map<String, Value>, problems: &mut Vec<Problem>) -> Grade {
    let Some(value) = table.get("grade") else { return Grade::Exact };
    serde_json::from_value(value.clone()).unwrap_or_else(|_| {
        problems.push(Problem::new("/grade", "must be `exact`, `coarse` or `none`"));
        Grade::Exact
    })
}

fn service(table: &Map<String, Value>, problems: &mut Vec<Problem>) -> Option<Service> {
    match (table.get("service"), table.get("token_file")) {
        (None, None) => None,
        (None, Some(_)) => {
            problems.push(Problem::new("/token_file", "is for a `service`, and there is none"));
            None
        }
        (Some(Value::String(url)), Some(Value::String(file))) if is_loopback(url) => {
            Some(Service { url: url.clone(), token_file: file.clone() })
        }
        (Some(Value::String(url)), token) => {
            if !is_loopback(url) {
                problems.push(Problem::new("/service", "must be on loopback, like `http://127.0.0.1:7070`"));
            }
            if !token.is_some_and(Value::is_string) {
                problems
                    .push(Problem::new("/token_file", "must be the path of a file with the service's token"));
            }
            None
        }
        (Some(_), _) => {
            problems.push(Problem::new("/service", "must be a text, like `http://127.0.0.1:7070`"));
            None
        }
    }
}

/// Secrets travel in the clear, and so not beyond this host.
fn is_loopback(url: &str) -> bool {
    let address = url.strip_prefix("http://").and_then(|rest| rest.parse::<std::net::SocketAddr>().ok());
    address.is_some_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_where_they_are() {
        let check = |text: &str, pointers: &[&str]| {
            let table = serde_json::from_str(text).unwrap();
            let problems = MemoryKind::default().check(&table);
            let mut found: Vec<_> = problems.into_iter().map(|problem| problem.pointer).collect();
            found.sort_unstable();
            assert_eq!(found, pointers, "{text}");
        };
        check("{}", &[]);
        check(r#"{"grade": "coarse"}"#, &[]);
        check(r#"{"service": "http://127.0.0.1:7070", "token_file": "/t"}"#, &[]);
        check(r#"{"service": "http://[::1]:7070", "token_file": "/t"}"#, &[]);
        check(r#"{"grade": "perfect", "gade": 1}"#, &["/gade", "/grade"]);
        check(r#"{"service": 1}"#, &["/service"]);
        check(r#"{"service": "http://127.0.0.1:7070"}"#, &["/token_file"]);
        check(r#"{"token_file": "/t"}"#, &["/token_file"]);
        for far in
            ["http://10.0.0.1:80", "https://127.0.0.1:1", "http://127.0.0.1", "http://127.0.0.1:1@far:2"]
        {
            check(&format!(r#"{{"service": "{far}", "token_file": "/t"}}"#), &["/service"]);
        }
    }
}
