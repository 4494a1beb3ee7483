//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};

use super::story::{Seen, ensure};

/// Where Debian and its children put each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The folder named, which must hold them; or the newest on this machine; or none.
pub(super) fn find(named: Option<&Path>) -> Seen<Option<PathBuf>> {
    if let Some(dir) = named {
        ensure(holds(dir), || format!("there are no `initdb` and `postgres` in {}", dir.display()))?;
        return Ok(Some(dir.to_owned()));
    }
    Ok(newest(Path::new(DEBIAN)).or_else(|| on_path(&std::env::var_os("PATH")?)))
}

fn holds(dir: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| dir.join(program).is_file())
}

fn newest(root: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(root).ok()?.filter_map(Result::ok);
    let version = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut known: Vec<u32> = versions.filter_map(version).collect();
    known.sort_unstable_by_key(|version| std::cmp::Reverse(*version));
    known.into_iter().map(|version| root.join(version.to_string()).join("bin")).find(|dir| holds(dir))
}

fn on_path(path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).find(|dir| holds(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_version_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for (version, programs) in [("9", 2), ("15", 2), ("18", 1), ("notes", 2)] {
            let bin = root.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for program in ["initdb", "postgres"].iter().take(programs) {
                std::fs::write(bin.join(program), "").unwrap();
            }
        }
        assert_eq!(newest(root.path()), Some(root.path().join("15/bin")));
        assert_eq!(newest(&root.path().join("none")), None);
        assert!(find(Some(&root.path().join("18/bin"))).is_err());
    }
}
