//! How a secret leaves this process: to a file, to a descriptor, or to the terminal where that was asked for
//! (RULES R-25).

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use leasehold_client::Credential;
use zeroize::Zeroizing;

use super::problem::Problem;

/// The shape of a secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// A connection URL.
    #[default]
    Dsn,
    /// Variables for a shell to read.
    Env,
    /// A line of a password file of libpq.
    Pgpass,
    /// The one secret, byte for byte.
    Raw,
}

/// Where a secret goes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeliverArgs {
    /// The shape of the secret.
    #[arg(long = "as", value_enum, default_value_t, value_name = "SHAPE")]
    pub(crate) shape: Shape,
    /// Write it to a new file that only this user reads, or to an open descriptor from 3 on.
    #[arg(long, value_name = "file:PATH|fd:N", value_parser = place, conflicts_with = "reveal")]
    pub(crate) to: Option<Place>,
    /// Show it on the standard output; what is said of the lease goes to the error stream.
    #[arg(long)]
    pub(crate) reveal: bool,
}

/// A place for a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file that is not there yet.
    File(PathBuf),
    /// A descriptor that the caller opened for this process.
    Fd(u32),
}

/// `file:PATH` or `fd:N`.
fn place(text: &str) -> Result<Place, String> {
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Place::File(path.into())),
        Some(("fd", number)) => match number.parse() {
            Ok(number) if number > 2 => Ok(Place::Fd(number)),
            Ok(_) => Err("0 to 2 are the terminal's: use --reveal".to_owned()),
            Err(_) => Err(format!("`{number}` is not a descriptor")),
        },
        Some(_) | None => Err(format!("`{text}` is neither file:PATH nor fd:N")),
    }
}

/// An open place. It is opened before a secret is asked for, so that none is minted in vain.
pub(crate) enum Sink {
    /// A new file; removed again unless it was filled.
    File { path: PathBuf, file: File, filled: bool },
    /// A descriptor.
    Fd(File),
    /// The standard output.
    Reveal,
}

impl DeliverArgs {
    /// Opens the place; `None` when no place was named.
    pub(crate) fn open(&self) -> Result<Option<Sink>, Problem> {
        Ok(match &self.to {
            None if self.reveal => Some(Sink::Reveal),
            None => None,
            Some(Place::File(path)) => {
                let file =
                    create_private(path).map_err(|error| unusable(&path.display().to_string(), &error))?;
                Some(Sink::File { path: path.clone(), file, filled: false })
            }
            Some(Place::Fd(number)) => {
                // Opened by its name in /proc: taking the number itself would need unsafe code.
                let file = OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}"));
                Some(Sink::Fd(file.map_err(|error| unusable(&format!("fd:{number}"), &error))?))
            }
        })
    }
}

fn unusable(place: &str, error: &std::io::Error) -> Problem {
    Problem::usage(format!("the secret cannot go to `{place}`"))
        .why(error.to_string())
        .next("name a file that is not there yet, or an open descriptor; nothing was minted")
}

/// A new file of mode 0600; one that is there already is an error.
pub(crate) fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

impl Sink {
    /// Writes the secret. A revealed one is left to the caller's console.
    pub(crate) fn fill(&mut self, secret: &[u8]) -> std::io::Result<()> {
        match self {
            Self::File { file, filled, .. } => {
                file.write_all(secret)?;
                file.sync_all()?;
                *filled = true;
                Ok(())
            }
            Self::Fd(file) => file.write_all(secret).and_then(|()| file.flush()),
            Self::Reveal => Ok(()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::File { path, filled: false, .. } = self {
            // Best effort: it holds no secret.
            drop(fs::remove_file(path));
        }
    }
}

/// The secret in the shape asked for, with a line end where the shape has lines.
pub(crate) fn render(credential: &Credential, shape: Shape) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    match shape {
        Shape::Dsn => push_line(&mut bytes, credential.dsn()?.expose()),
        Shape::Pgpass => push_line(&mut bytes, &pgpass(credential)?),
        Shape::Env => variables(&mut bytes, credential),
        Shape::Raw => bytes.extend_from_slice(only_secret(credential)?),
    }
    Ok(bytes)
}

fn push_line(bytes: &mut Vec<u8>, line: &str) {
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
}

fn only_secret(credential: &Credential) -> Result<&[u8], Problem> {
    let mut names = credential.secret_names();
    let only = names.next().filter(|_| names.next().is_none());
    only.and_then(|name| credential.expose(name)).ok_or_else(|| {
        Problem::usage("this credential has more than one secret part").next("--as env shows them all")
    })
}

/// A line of a password file (libpq, "The Password File"): `:` and `\` are escaped.
pub(crate) fn pgpass(credential: &Credential) -> Result<Zeroizing<String>, Problem> {
    let password = credential.secret("password")?;
    let mut line = Zeroizing::new(String::with_capacity(1024));
    for name in ["host", "port", "dbname", "user"] {
        push_escaped(&mut line, credential.part(name).unwrap_or("*"));
        line.push(':');
    }
    push_escaped(&mut line, password.expose());
    Ok(line)
}

fn push_escaped(line: &mut String, field: &str) {
    for c in field.chars() {
        if matches!(c, ':' | '\\') {
            line.push('\\');
        }
        line.push(c);
    }
}

/// The environment of a credential with its secrets, quoted for a POSIX shell.
fn variables(bytes: &mut Vec<u8>, credential: &Credential) {
    for (name, value) in public_variables(credential) {
        push_quoted(bytes, &name, value.as_bytes());
    }
    for name in credential.secret_names() {
        push_quoted(bytes, &variable(credential.kind(), name), credential.expose(name).unwrap_or_default());
    }
}

fn push_quoted(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(format!("export {name}='").as_bytes());
    for &byte in value {
        match byte {
            b'\'' => bytes.extend_from_slice(b"'\\''"),
            other => bytes.push(other),
        }
    }
    bytes.extend_from_slice(b"'\n");
}

/// The variables of the public parts.
pub(crate) fn public_variables(credential: &Credential) -> Vec<(String, String)> {
    let kind = credential.kind();
    credential.public().iter().map(|(name, value)| (variable(kind, name), value.clone())).collect()
}

/// The variable of one part: libpq's own names for PostgreSQL, `KIND_PART` for others.
pub(crate) fn variable(kind: &str, part: &str) -> String {
    match (kind, part) {
        ("postgres", "dbname") => "PGDATABASE".to_owned(),
        ("postgres", part) => format!("PG{}", upper(part)),
        (kind, part) => format!("{}_{}", upper(kind), upper(part)),
    }
}

fn upper(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
pub(crate) mod tests;
