//! A look at a store from outside, as `check` takes it: it makes, holds and changes nothing, and a broker may be
//! writing.

use std::fs;
use std::io::ErrorKind;

use super::readers::Reader;
use super::{Options, StoreError, backup, leases, schema};
use crate::store::bad::BadRows;

/// The targets in which any lease may exist, by name; `None` where there is no store yet.
///
/// # Errors
/// [`StoreError::Foreign`] where a broker of these options could not use it, [`StoreError::Newer`] for a schema from
/// the future, else [`StoreError::Unusable`].
pub fn look(options: &Options) -> Result<Option<Vec<String>>, StoreError> {
    // A file without a byte is one whose first start did not come far.
    match fs::metadata(&options.path) {
        Ok(file) if file.len() > 0 => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::Unusable(format!("`{}`: {error}", options.path.display()))),
    }
    let conn = backup::read_only(&options.path)?;
    schema::identify(&conn, options)?;
    leases::live_targets(&Reader { conn: &conn, bad: &BadRows::default() }).map(Some)
}
