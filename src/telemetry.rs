//! The broker's log: lines on stderr, for people or, with `LEASEHOLD_LOG=json`, for machines.
//!
//! `RUST_LOG` says how much of the broker's own crates is told. Other crates never tell more than `info`: below that
//! some print what goes over a wire, statements with verifiers and frames with credentials among it.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

/// What is told where nobody asks for more.
const DEFAULT: &str = "info";
/// What the names of our own crates begin with.
const OURS: &str = "leasehold";

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text { colour: bool },
    Json,
}

/// Starts the log, once in a process; a second call changes nothing. A malformed `RUST_LOG` is told, and taken as
/// `info`.
pub fn init() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let json = std::env::var_os("LEASEHOLD_LOG").is_some_and(|shape| shape == "json");
    let shape = if json { Shape::Json } else { Shape::Text { colour: std::io::stderr().is_terminal() } };
    let (filter, problem) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT), Some(error)),
    };
    let started = subscriber(filter, shape, std::io::stderr).try_init().is_ok();
    if let Some(error) = problem.filter(|_| started) {
        tracing::warn!(%error, "RUST_LOG cannot be read; telling `{DEFAULT}`");
    }
}

fn subscriber<W>(filter: EnvFilter, shape: Shape, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let capped = Targets::new().with_default(LevelFilter::INFO).with_target(OURS, LevelFilter::TRACE);
    // A stderr that is gone must not end the process: fmt would complain on stderr.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = match shape {
        Shape::Text { colour } => lines.with_ansi(colour).boxed(),
        Shape::Json => lines.json().boxed(),
    };
    Registry::default().with(lines.with_filter(filter.and(capped)))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(filter: &str, shape: Shape, tell: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(EnvFilter::new(filter), shape, move || writer.clone());
        tracing::subscriber::with_default(subscriber, tell);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn others_never_tell_more_than_info() {
        let check = |filter: &str, expect: &[&str]| {
            let text = told(filter, Shape::Text { colour: false }, || {
                tracing::trace!(target: "tokio_postgres::query", "their-trace");
                tracing::debug!(target: "h2::codec", "their-debug");
                tracing::info!(target: "h2::codec", "their-info");
                tracing::trace!(target: "leasehold_postgres::issue", "our-trace");
                tracing::info!(target: "leasehold::server", "our-info");
            });
            let words = ["their-trace", "their-debug", "their-info", "our-trace", "our-info"];
            let found: Vec<_> = words.into_iter().filter(|word| text.contains(word)).collect();
            assert_eq!(found, expect, "{filter}");
        };
        check("info", &["their-info", "our-info"]);
        check("trace", &["their-info", "our-trace", "our-info"]);
        check("trace,h2=trace,tokio_postgres=trace", &["their-info", "our-trace", "our-info"]);
        check("warn,leasehold=trace", &["our-info"]);
        check("off", &[]);
    }

    #[test]
    fn machines_get_json() {
        let line =
            told("info", Shape::Json, || tracing::info!(target: "leasehold", lease = "lease_1", "dead"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["fields"]["lease"], &value["level"]), (&"lease_1".into(), &"INFO".into()));
    }
}
