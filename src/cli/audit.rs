//! `audit`: read the journal, check it, take it away.

use std::{
    cell::Cell,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use leasehold_client::{Client, ClientError, v1};
use leasehold_law::journal;
use leasehold_law::words::count;
use serde_json::{Value, json};
use v1::trace_request::{Last, Subject};

use super::{
    console::Report,
    find, json,
    problem::{Exit, Problem},
    session::{LimitArgs, Session, more_line, pages},
    view::stamp,
};

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// The story of one task, lease, decision or principal, in the order in which it happened.
    #[command(
        after_help = "Example: leasehold audit trace --last\n         leasehold audit trace lease_06ds..."
    )]
    Trace(TraceArgs),
    /// Check that a chain is whole: an exported file, without any broker; or the broker's store.
    #[command(after_help = "Example: leasehold audit verify export.jsonl")]
    Verify(VerifyArgs),
    /// Write a range of a chain as JSON lines that `verify` checks.
    #[command(after_help = "Example: leasehold audit export --to export.jsonl")]
    Export(ExportArgs),
}

/// `audit trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The id of a task, lease or decision, or whatever `find` finds.
    #[arg(value_name = "NAME", required_unless_present = "last")]
    subject: Option<String>,
    /// The newest task.
    #[arg(long, conflicts_with = "subject")]
    last: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// A range of a chain.
#[derive(Clone, Debug, Args)]
struct RangeArgs {
    /// The chain, `BROKER/INCARNATION` as `status` prints it; the broker's own otherwise.
    #[arg(long, value_name = "CHAIN", default_value = "", hide_default_value = true)]
    chain: String,
    /// The number of the first entry; the chain's first otherwise.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// The number of the last entry; the chain's last otherwise.
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    until: u64,
}

/// `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An export, which is checked here and without a broker. Without it the broker checks its store.
    #[arg(value_name = "FILE", conflicts_with_all = ["chain", "from", "until"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    range: RangeArgs,
}

/// `audit export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A new file, mode 0600; the standard output otherwise.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    range: RangeArgs,
}

pub(crate) async fn run(command: AuditCommand, session: &mut Session) -> Result<Exit, Problem> {
    match command {
        AuditCommand::Trace(args) => trace(args, session).await,
        AuditCommand::Verify(VerifyArgs { file: Some(file), .. }) => verify_file(&file, session),
        AuditCommand::Verify(VerifyArgs { file: None, range }) => verify_store(range, session).await,
        AuditCommand::Export(args) => export(args, session).await,
    }
}

async fn trace(args: TraceArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let subject = match args.subject {
        None => Subject::Last(Last {}),
        Some(text) => subject(&client, text).await?,
    };
    let cut = Cell::new(false);
    let (entries, more) = pages(args.limit, |page_size, page_token| {
        let request = v1::TraceRequest { page_size, page_token, subject: Some(subject.clone()) };
        let (client, cut) = (&client, &cut);
        async move {
            let answer = client.persist(|| async { client.audit().trace(request.clone()).await }).await?;
            cut.set(answer.cut);
            Ok((answer.entries, answer.next_page_token))
        }
    })
    .await?;
    session.console.report(&traced(&entries, more, cut.get())).map(|()| Exit::DONE)
}

/// An id names its kind; anything else is looked up first.
async fn subject(client: &Client, text: String) -> Result<Subject, Problem> {
    if let Some(subject) = by_prefix(&text) {
        return Ok(subject);
    }
    let (hits, _) = find::hits(client, &text, LimitArgs { limit: 2 }).await?;
    match hits.as_slice() {
        [] => Err(Problem::failed(format!("nothing is known by `{text}`")).next(find::FOUND_BY)),
        [hit] if !hit.lease.is_empty() => Ok(Subject::Lease(hit.lease.clone())),
        [hit] if !hit.task.is_empty() => Ok(Subject::Task(hit.task.clone())),
        _ => Err(Problem::usage(format!("`{text}` is not one task, lease or decision"))
            .next(format!("leasehold find '{text}' lists them"))),
    }
}

fn by_prefix(text: &str) -> Option<Subject> {
    match text.split_once('_')?.0 {
        "task" => Some(Subject::Task(text.to_owned())),
        "lease" => Some(Subject::Lease(text.to_owned())),
        "dec" => Some(Subject::Decision(text.to_owned())),
        _ => None,
    }
}

fn traced(entries: &[v1::JournalEntry], more: bool, cut: bool) -> Report {
    let line = |entry: &v1::JournalEntry| {
        format!("{:>6}  {}  {:<20}  {}\n", entry.seq, stamp(entry.at), entry.kind, entry.summary)
    };
    let text: String = entries.iter().map(line).collect();
    let json = json!({"entries": entries.iter().map(entry).collect::<Vec<_>>(), "more": more, "cut": cut});
    Report::new(text + more_line(more) + if cut { CUT } else { "" }, json)
}

/// The last line of a trace that the broker tells no further.
const CUT: &str = "the story goes on: a trace ends here, and leasehold audit export has all of it\n";

fn entry(entry: &v1::JournalEntry) -> Value {
    json!({
        "chain": entry.chain, "seq": entry.seq, "at": json::time(entry.at), "kind": entry.kind,
        "subject": entry.subject, "summary": entry.summary, "task": entry.task, "lease": entry.lease,
        // As the text that was hashed: read as JSON and written again it would be other bytes.
        "body": entry.body, "hash": hex(&entry.hash),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Needs no broker: the file and the law are enough.
fn verify_file(path: &Path, session: &mut Session) -> Result<Exit, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::failed(format!("cannot read `{}`", path.display())).why(error.to_string())
    };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let report = verified(&text, &path.display().to_string())?;
    session.console.report(&report).map(|()| Exit::DONE)
}

fn verified(export: &str, name: &str) -> Result<Report, Problem> {
    let head = journal::verify(export.lines()).map_err(|error| {
        Problem::failed(format!("refused `{name}`: {error}"))
            .why("the hashes do not fit what the file says")
            .next("compare with another export and with the outside checkpoints; trust nothing from there on")
    })?;
    let entries = export.lines().count().saturating_sub(1);
    let (chain, hash) = (head.chain.as_str(), head.hash.to_string());
    let text = format!(
        "{} of {chain}, chain whole\nends at {} with {hash}; that nothing is missing behind it, a \
         checkpoint shows",
        count(entries, "entry"),
        head.seq
    );
    Ok(Report::new(
        text,
        json!({"whole": true, "chain": chain, "entries": entries, "last_seq": head.seq, "last_hash": hash}),
    ))
}

async fn verify_store(range: RangeArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let request = v1::VerifyRequest { chain: range.chain, first_seq: range.from, last_seq: range.until };
    let answer = client.call(client.audit().verify(request)).await?;
    let text = match answer.whole {
        true => format!("{} of {}, chain whole", count(answer.entries, "entry"), answer.chain),
        false => format!("{}: entry {} is broken: {}", answer.chain, answer.first_broken, answer.problem),
    };
    let json = json!({
        "whole": answer.whole, "chain": answer.chain, "entries": answer.entries, "last_seq": answer.last_seq,
        "last_hash": hex(&answer.last_hash), "first_broken": answer.first_broken, "problem": answer.problem,
    });
    session.console.report(&Report::new(text, json))?;
    Ok(if answer.whole { Exit::DONE } else { Exit::FAILED })
}

async fn export(args: ExportArgs, session: &mut Session) -> Result<Exit, Problem> {
    let client = session.admin().await?;
    let range = args.range;
    let request = v1::ExportRequest { chain: range.chain, first_seq: range.from, last_seq: range.until };
    let mut stream = client.call(client.audit().export(request)).await?;
    let mut file = args.to.as_deref().map(new_file).transpose()?;
    while let Some(piece) = stream.message().await.map_err(ClientError::from)? {
        match &mut file {
            Some(file) => file.write_all(&piece.lines).map_err(|error| unwritten(&error))?,
            None => session.console.raw(&piece.lines)?,
        }
    }
    file.map(|file| file.sync_all()).transpose().map_err(|error| unwritten(&error))?;
    Ok(Exit::DONE)
}

/// The record names people and systems: for this user only.
fn new_file(path: &Path) -> Result<fs::File, Problem> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Problem::usage(format!("cannot make `{}`", path.display())).why(error.to_string()))
}

fn unwritten(error: &std::io::Error) -> Problem {
    Problem::failed("the export is not whole").why(error.to_string())
}

#[cfg(test)]
mod tests {
    use journal::{ChainHead, ChainId, Line};

    use super::*;

    fn export(bodies: &[&str]) -> String {
        let mut head = ChainHead::genesis(ChainId::new("broker-1", 1));
        let begin = Line::Begin { chain: head.chain.clone(), first_seq: 1, prev: head.hash };
        let entries = bodies.iter().map(|body| {
            let entry = head.append(body.as_bytes().to_vec());
            Line::Entry { seq: entry.seq, body: (*body).to_owned(), hash: entry.hash }
        });
        let lines: Vec<_> = std::iter::once(begin).chain(entries).collect();
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    #[test]
    fn a_whole_export_is_counted() {
        let report = verified(&export(&["aaaa", "bbbb"]), "export.jsonl").ok().unwrap();
        assert!(report.text.starts_with("2 entries of broker-1/1, chain whole"), "{}", report.text);
    }

    #[test]
    fn a_flipped_byte_is_named() {
        let broken = export(&["aaaa", "bbbb", "cccc"]).replace("bbbb", "bbbc");
        let problem = verified(&broken, "export.jsonl").err().unwrap();
        assert_eq!(problem.what, "refused `export.jsonl`: entry 2 is the first broken one");
        assert_eq!(problem.exit, Exit::FAILED);
    }

    #[test]
    fn a_trace_that_is_cut_says_so() {
        let entries = [v1::JournalEntry { seq: 7, kind: "lease.active".into(), ..Default::default() }];
        let report = traced(&entries, false, true);
        assert!(report.text.ends_with(CUT), "{}", report.text);
        assert_eq!(report.json["cut"], true);
        assert!(!traced(&entries, true, false).text.contains("export"), "the next page is asked for first");
    }

    #[test]
    fn ids_name_their_kind() {
        assert_eq!(by_prefix("task_1"), Some(Subject::Task("task_1".into())));
        assert_eq!(by_prefix("dec_1"), Some(Subject::Decision("dec_1".into())));
        assert_eq!(by_prefix("lh9fk2"), None);
        assert_eq!(by_prefix("rev_1"), None);
    }
}
