//! A key that proves calls, kept in a file: for processes of one workload that come with the same token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leasehold_jose::{ProofKey, SigningKey};
use zeroize::Zeroizing;

use crate::bearer::Fetched;
use crate::retry::request_id;
use crate::{TokenSource, TokenSourceError};

/// The longest file that is read, in bytes; a key takes about 140.
const MOST: u64 = 4096;

/// Tokens of one source, with the key of a file.
pub(crate) struct WithKey {
    pub(crate) tokens: Arc<dyn TokenSource>,
    pub(crate) file: PathBuf,
}

impl TokenSource for WithKey {
    fn fetch(&self) -> Fetched<'_> {
        self.tokens.fetch()
    }

    fn key(&self) -> Result<ProofKey, TokenSourceError> {
        key(&self.file)
    }

    fn agent(&self) -> Option<&str> {
        self.tokens.agent()
    }
}

/// The key in this file. Where there is no file it is made, readable by its owner alone; of processes that make it at the
/// same time all get the key of the first.
fn key(path: &Path) -> Result<ProofKey, TokenSourceError> {
    let unusable = |error: &dyn std::fmt::Display| TokenSourceError {
        what: format!("the key in `{}` cannot be used: {error}", path.display()),
        next: "LEASEHOLD_KEY_FILE names a file of this user's own, mode 0600, or one that is not there yet"
            .to_owned(),
    };
    let read = match read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(path).map_err(|error| unusable(&error))?;
            read(path)
        }
        read => read,
    };
    let pkcs8 = read.map_err(|error| unusable(&error))?;
    ProofKey::from_pkcs8(&pkcs8).map_err(|error| unusable(&error))
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.mode() & 0o077 != 0 {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "others than its owner may read it"));
    }
    let mut pkcs8 = Zeroizing::new(Vec::new());
    file.take(MOST).read_to_end(&mut pkcs8)?;
    Ok(pkcs8)
}

/// It appears under its name whole, or not at all.
fn make(path: &Path) -> io::Result<()> {
    let pkcs8 = SigningKey::new_pkcs8().map_err(io::Error::other)?;
    let draft = PathBuf::from(format!("{}.{}", path.display(), request_id()));
    let written = write(&draft, &pkcs8).and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        written => written,
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder of its own, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("leasehold-key-{}", request_id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("key")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn whoever_comes_finds_the_key_of_the_first() {
        let folder = Folder::new();
        let file = folder.file();
        let names: Vec<_> = std::thread::scope(|scope| {
            let each = || scope.spawn(|| key(&file).unwrap().thumbprint().to_string());
            let threads: Vec<_> = (0..8).map(|_| each()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no draft stays");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = Folder::new();
        key(&folder.file()).unwrap();
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(key(&folder.file()).unwrap_err().what.contains("others than its owner"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_stays() {
        let folder = Folder::new();
        write(&folder.file(), b"text").unwrap();
        assert!(key(&folder.file()).unwrap_err().what.contains("cannot be used"));
        assert_eq!(fs::read(folder.file()).unwrap(), b"text");
    }
}
