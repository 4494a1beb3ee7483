//! A server that cannot write: its disk is full, or it has become read-only.

use super::world::Base;
use crate::store::suite::samples::{draft, lease_change, minting};
use crate::store::suite::{put, verify_export};
use crate::store::{Change, Outcome, Store, StoreError};

/// As a server says it where a row must be written.
async fn refuses_rows(base: &Base, code: &str, what: &str) {
    base.sql(&format!(
        "CREATE FUNCTION leasehold.refuse() RETURNS trigger LANGUAGE plpgsql AS \
            $$ BEGIN RAISE EXCEPTION '{what}' USING ERRCODE = '{code}'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON leasehold.journal FOR EACH ROW EXECUTE FUNCTION leasehold.refuse()"
    ))
    .await;
}

async fn goes_on_reading_and_recovers(code: &str, what: &str) {
    let base = Base::new().await;
    let store = base.open("a").await;
    put(&store, vec![lease_change(&minting(1, 1)), Change::Append(draft(1))]).await;
    refuses_rows(&base, code, what).await;
    let outcome = store.commit(vec![lease_change(&minting(2, 1)), Change::Append(draft(2))], vec![]).await;
    let told = matches!(&outcome, Outcome::Failed(StoreError::Unusable(why)) if why.contains(what));
    assert!(told, "{outcome:?}");
    assert_eq!(store.lease(minting(1, 1).terms.id).await, Ok(Some(minting(1, 1))));
    assert_eq!(store.lease(minting(2, 1).terms.id).await, Ok(None), "all of it or nothing");
    base.sql("DROP FUNCTION leasehold.refuse CASCADE").await;
    put(&store, vec![lease_change(&minting(2, 1)), Change::Append(draft(2))]).await;
    assert_eq!(verify_export(&store).await, 2);
}

#[tokio::test]
async fn a_full_disk_fails_what_does_not_fit_and_recovers() {
    goes_on_reading_and_recovers("53100", "could not extend file: no space left on device").await;
}

#[tokio::test]
async fn a_read_only_store_goes_on_reading_and_recovers() {
    goes_on_reading_and_recovers("25006", "cannot execute INSERT in a read-only transaction").await;
}
