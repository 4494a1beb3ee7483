//! A look at a store from outside, as `check` takes it: it makes and changes nothing, and takes no broker's name.

use super::address::Address;
use super::link::Link;
use super::{Options, StoreError, column, schema};
use crate::store::conditions::each_live;

/// The targets in which any lease may exist, by name; `None` where there is no store yet.
///
/// # Errors
/// [`StoreError::Foreign`] where a broker of these options could not use it, [`StoreError::Newer`] for a schema from
/// the future, else [`StoreError::Unusable`].
pub async fn look(options: &Options) -> Result<Option<Vec<String>>, StoreError> {
    let link = Link::open(&Address::read(options)?, None).await?;
    link.run("SET default_transaction_read_only = on").await?;
    if !schema::identify(&link, options).await? {
        return Ok(None);
    }
    let found = link.rows(&each_live("target"), &[]).await?;
    found.iter().map(|row| column(row, 0)).collect::<Result<_, _>>().map(Some)
}
