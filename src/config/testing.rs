//! What the tests of config and init share.

use leasehold_backend::kind::EntropyError;
use leasehold_backend::{Backend, BackendKind, Entropy, KindError, Problem};
use leasehold_law::time::Timestamp;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Randomness of which the tests know what it is.
#[derive(Debug)]
pub(crate) struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(7);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
}

/// A kind by name whose check wants `connect.port` to be a number, and which opens nothing.
#[derive(Debug)]
pub(crate) struct Kind(pub(crate) &'static str);

impl BackendKind for Kind {
    fn name(&self) -> &'static str {
        self.0
    }

    fn check(&self, table: &Map<String, Value>) -> Vec<Problem> {
        match table.get("connect").and_then(|connect| connect.get("port")) {
            Some(port) if !port.is_number() => vec![Problem::new("/connect/port", "a port is a number")],
            Some(_) | None => Vec::new(),
        }
    }

    fn open(
        &self,
        _: &str,
        _: &Map<String, Value>,
        _: Arc<dyn Entropy>,
    ) -> Result<Arc<dyn Backend>, KindError> {
        Err(vec![Problem::new("", "only for checks")])
    }
}

/// The kinds that a broker has.
pub(crate) fn kinds() -> Vec<Box<dyn BackendKind>> {
    vec![Box::new(Kind("memory")), Box::new(Kind("postgres"))]
}
