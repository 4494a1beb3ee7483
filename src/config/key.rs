//! The installation key's file (RULES ): outside the store and its backups, for the broker's eyes only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use leasehold_backend::{Entropy, kind::EntropyError};
use leasehold_law::principal::InstallationKey;
use zeroize::Zeroizing;

use super::trust::Trust;

/// The longest key file that is read, in bytes.
const MAX_BYTES: u16 = 1024;

/// Which world a key was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// For a broker that guards something.
    Production,
    /// For dev, demo and tests: needs `--dev-trust`.
    Dev,
}

impl KeyKind {
    /// The first line of its file.
    const fn header(self) -> &'static str {
        match self {
            Self::Production => "leasehold-key v1",
            Self::Dev => "leasehold-dev-key v1",
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file. To make one for a store that was served before would orphan what lives.
    #[error(
        "there is no installation key at `{path}`\n  \
         why: the names of all that is minted are marked with it, so that the broker knows what is its own\n  \
         next: where this store was served before, put back the copy of its key; else make one: `leasehold init DIR` \
         writes DIR/installation.key, or (umask 077; {{ echo '{header}'; openssl rand -hex 32; }} > '{path}')",
        path = .0.display(), header = KeyKind::Production.header()
    )]
    Absent(PathBuf),
    /// The file cannot be read or written.
    #[error("`{path}`: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others may read the file.
    #[error("`{path}` has mode {mode:04o}; others must not read it: chmod 0600 {path}", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds something else.
    #[error("`{}` is no installation key: it needs a line `leasehold-key v1` and one of 64 hexadecimal digits", .0.display())]
    Malformed(PathBuf),
    /// It is a dev key, and dev keys are not accepted.
    #[error("`{}` is a dev key: it needs `--dev-trust`", .0.display())]
    Dev(PathBuf),
    /// There is no randomness to make one of.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Reads the installation key.
///
/// # Errors
/// Where the file is absent, may be read by others, holds no key, or holds a dev key that `trust` refuses.
pub fn read_installation_key(path: &Path, trust: Trust) -> Result<InstallationKey, KeyError> {
    let file = File::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return KeyError::Absent(path.to_owned());
        }
        io_error(path, error)
    })?;
    let mode = file.metadata().map_err(|error| io_error(path, error))?.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode });
    }
    // Reserved at once, so that no growing leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES.into()));
    file.take(MAX_BYTES.into()).read_to_string(&mut text).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            return KeyError::Malformed(path.to_owned());
        }
        io_error(path, error)
    })?;
    let (kind, bytes) = parse(&text).ok_or_else(|| KeyError::Malformed(path.to_owned()))?;
    if kind == KeyKind::Dev && trust == Trust::Production {
        return Err(KeyError::Dev(path.to_owned()));
    }
    Ok(InstallationKey::new(bytes))
}

/// Makes a key and writes it to a new file that only its owner reads.
///
/// # Errors
/// Where the file exists or cannot be written, or there is no randomness.
pub fn write_installation_key(path: &Path, kind: KeyKind, entropy: &dyn Entropy) -> Result<(), KeyError> {
    let mut bytes = Zeroizing::new([0; InstallationKey::BYTES]);
    entropy.fill(bytes.as_mut_slice())?;
    let text = Zeroizing::new(format!("{}\n{}\n", kind.header(), *hex(&bytes)));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| io_error(path, error))
}

fn io_error(path: &Path, error: io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), error }
}

fn parse(text: &str) -> Option<(KeyKind, Zeroizing<[u8; InstallationKey::BYTES]>)> {
    let (header, rest) = text.split_once('\n')?;
    let kind =
        [KeyKind::Production, KeyKind::Dev].into_iter().find(|kind| kind.header() == header.trim_end())?;
    let digits = rest.trim();
    if digits.len() != 2 * InstallationKey::BYTES || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; InstallationKey::BYTES]);
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some((kind, bytes))
}

fn hex(bytes: &[u8; InstallationKey::BYTES]) -> Zeroizing<String> {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use leasehold_law::id::LeaseId;
    use leasehold_law::principal::PrincipalName;
    use leasehold_law::time::Timestamp;

    use super::*;
    use crate::config::testing::Sevens;

    fn name(key: &InstallationKey) -> PrincipalName {
        PrincipalName::derive(LeaseId::derive(Timestamp(1), 1), key)
    }

    #[test]
    fn a_key_reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_installation_key(&path, KeyKind::Production, &Sevens).unwrap();
        let read = read_installation_key(&path, Trust::Production).unwrap();
        assert_eq!(name(&read), name(&InstallationKey::new(Zeroizing::new([7; 32]))));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = write_installation_key(&path, KeyKind::Production, &Sevens).unwrap_err();
        assert!(matches!(again, KeyError::Io { error, .. } if error.kind() == io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn what_is_no_key_for_this_broker_is_refused() {
        let digits = "07".repeat(32);
        let check = |text: &str, mode: u32, trust: Trust, expect: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("key");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said =
                read_installation_key(&path, trust).map_or_else(|e| e.to_string(), |_| "fine".to_owned());
            assert!(said.contains(expect), "{text:?}: {said}");
            assert!(!said.contains("0707"), "{said}");
        };
        let (real, dev) =
            (format!("leasehold-key v1\n{digits}\n"), format!("leasehold-dev-key v1\n{digits}"));
        check(&real, 0o600, Trust::Production, "fine");
        check(&real, 0o400, Trust::Dev, "fine");
        check(&dev, 0o600, Trust::Dev, "fine");
        check(&dev, 0o600, Trust::Production, "needs `--dev-trust`");
        check(&real, 0o640, Trust::Production, "chmod 0600");
        check(&real, 0o604, Trust::Dev, "chmod 0600");
        for bad in ["", "leasehold-key v1", &digits, &format!("leasehold-key v2\n{digits}"), &real.repeat(2)]
        {
            check(bad, 0o600, Trust::Dev, "no installation key");
        }
        check(&real.replace("07", "é"), 0o600, Trust::Dev, "no installation key");
    }

    #[test]
    fn an_absent_key_is_named_with_how_to_make_one() {
        let error = read_installation_key(Path::new("/nowhere/key"), Trust::Dev).unwrap_err();
        insta::assert_snapshot!(error);
    }

    /// Where there is a shell; the digits are another program's.
    #[test]
    fn what_the_error_says_to_run_makes_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let told = read_installation_key(&path, Trust::Production).unwrap_err().to_string();
        let line = told
            .rsplit_once(", or ")
            .unwrap()
            .1
            .replace("openssl rand -hex 32", &format!("echo {}", "07".repeat(32)));
        assert!(std::process::Command::new("sh").args(["-c", &line]).status().unwrap().success());
        read_installation_key(&path, Trust::Production).unwrap();
    }
}
