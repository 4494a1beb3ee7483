//! The one place that writes to people and asks them.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::SystemTime,
};

use clap::ValueEnum;
use serde_json::Value;

use super::problem::Problem;

/// The shape of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON value, or one a line where a command goes on reporting.
    Json,
}

/// What a command has to say, in both shapes. It never holds a secret.
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Report {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json }
    }
}

/// Where reports, warnings and questions go.
pub(crate) struct Console {
    pub(crate) out: Box<dyn Write + Send>,
    pub(crate) err: Box<dyn Write + Send>,
    pub(crate) input: Box<dyn BufRead + Send>,
    pub(crate) format: Format,
    /// Whether a person can be asked.
    pub(crate) asks: bool,
}

impl Console {
    pub(crate) fn process(format: Format) -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            input: Box::new(io::BufReader::new(io::stdin())),
            format,
            asks: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Writes a report to the standard output.
    pub(crate) fn report(&mut self, report: &Report) -> Result<(), Problem> {
        match self.format {
            Format::Text => self.raw(with_end(&report.text).as_bytes()),
            Format::Json => self.raw(format!("{}\n", report.json).as_bytes()),
        }
    }

    /// Writes bytes as they are to the standard output.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.out
            .write_all(bytes)
            .and_then(|()| self.out.flush())
            .map_err(|error| Problem::failed(format!("cannot write to the standard output: {error}")))
    }

    /// Says something beside the report. A closed error stream hears nothing, and stops nothing.
    pub(crate) fn note(&mut self, text: &str) {
        drop(writeln!(self.err, "leasehold: {text}"));
    }

    /// Tells a problem, in the shape asked for.
    pub(crate) fn problem(&mut self, problem: &Problem) {
        let told = match self.format {
            Format::Text => write!(self.err, "{}", problem.text(SystemTime::now())),
            Format::Json => writeln!(self.err, "{}", problem.json()),
        };
        drop(told);
    }

    /// Asks a question on the terminal. Anything but `y` or `yes` is a no.
    pub(crate) fn confirm(&mut self, question: &str) -> bool {
        let asked = write!(self.err, "{question} [y/N] ").and_then(|()| self.err.flush());
        let mut answer = String::new();
        let read = asked.and_then(|()| self.input.read_line(&mut answer));
        read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }
}

fn with_end(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, kept for a look.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A console that answers `input`, and what it wrote to out and err.
    pub(crate) fn captured(format: Format, input: &'static str) -> (Console, Written, Written) {
        let (out, err) = (Written::default(), Written::default());
        let console = Console {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            input: Box::new(input.as_bytes()),
            format,
            asks: true,
        };
        (console, out, err)
    }

    fn check_answer(answer: &'static str, expect: bool) {
        assert_eq!(captured(Format::Text, answer).0.confirm("sure?"), expect, "{answer:?}");
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        check_answer("y\n", true);
        check_answer("YES\n", true);
        check_answer("\n", false);
        check_answer("", false);
        check_answer("yep\n", false);
    }

    #[test]
    fn a_report_is_told_in_the_shape_asked_for() {
        let report = Report::new("one", serde_json::json!({"a": 1}));
        let (mut text, out, _) = captured(Format::Text, "");
        text.report(&report).unwrap();
        assert_eq!(out.text(), "one\n");
        let (mut json, out, _) = captured(Format::Json, "");
        json.report(&report).unwrap();
        assert_eq!(out.text(), "{\"a\":1}\n");
    }
}
