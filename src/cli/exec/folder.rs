//! Where secrets lie while the command runs: private files in a private folder, in memory, gone with it.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::super::{deliver::create_private, problem::Problem};

/// `f_type` of tmpfs (statfs(2)).
const TMPFS: i64 = 0x0102_1994;
const SHARED_MEMORY: &str = "/dev/shm";

/// A folder of mode 0700 on tmpfs, removed when dropped.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn make() -> Result<Self, Problem> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::make_in(own.into_iter().chain([PathBuf::from(SHARED_MEMORY)]))
    }

    fn make_in(places: impl Iterator<Item = PathBuf>) -> Result<Self, Problem> {
        let mut why = Vec::new();
        for place in places {
            match is_in_memory(&place).and_then(|good| if good { folder(&place).map(Some) } else { Ok(None) })
            {
                Ok(Some(folder)) => return Ok(Self(folder)),
                Ok(None) => why.push(format!("`{}` is not in memory", place.display())),
                Err(error) => why.push(format!("`{}`: {error}", place.display())),
            }
        }
        Err(Problem::failed("there is no place for secrets: they are never written to a disk")
            .why(why.join("\n"))
            .next("set XDG_RUNTIME_DIR to a folder of yours on tmpfs"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a secret under a name; one that is there is replaced in one step, so that no reader sees half of it.
    pub(crate) fn put(&self, name: &str, secret: &[u8]) -> io::Result<PathBuf> {
        let (path, next) = (self.path(name), self.path(&format!("{name}.next")));
        let mut file = create_private(&next)?;
        file.write_all(secret)?;
        fs::rename(&next, &path)?;
        Ok(path)
    }
}

fn is_in_memory(place: &Path) -> io::Result<bool> {
    let found = rustix::fs::statfs(place)?;
    Ok(found.f_type == TMPFS)
}

fn folder(place: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("leasehold-").permissions(Permissions::from_mode(0o700)).tempdir_in(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_lie_in_private_and_go_away() {
        let folder = Folder::make_in([PathBuf::from(SHARED_MEMORY)].into_iter()).ok().unwrap();
        let path = folder.put("pgpass", b"one").unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
        folder.put("pgpass", b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_disk_is_no_place() {
        let problem = Folder::make_in([PathBuf::from("/proc")].into_iter()).err().unwrap();
        assert_eq!(problem.why.as_deref(), Some("`/proc` is not in memory"));
    }
}
