//! The files of a store: kept from other users, and held by one broker at a time.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

pub(super) const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_FOLDER: u32 = 0o700;

/// Makes what is missing, and holds the store until the file that is given back is closed.
///
/// # Errors
/// [`StoreError::Held`] while another broker holds it.
pub(super) fn hold(path: &Path) -> Result<File, StoreError> {
    let lock = lock(path)?;
    // SQLite gives its other files the mode of this one.
    create(path)?;
    Ok(lock)
}

/// Holds the place of a store, whether there is one or not.
///
/// The kernel drops the lock with the process, however it ends. It lies on a file of its own because closing any
/// descriptor of the database would drop SQLite's own locks on it.
///
/// # Errors
/// [`StoreError::Held`] while a broker holds it.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(PRIVATE_FOLDER).create(folder);
        made.map_err(|error| unusable(folder, error))?;
    }
    let lock = create(&lock_path(path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Held(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(unusable(path, error)),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    PathBuf::from(name)
}

fn create(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE_FILE);
    options.open(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: impl Display) -> StoreError {
    StoreError::Unusable(format!("`{}`: {error}", path.display()))
}
