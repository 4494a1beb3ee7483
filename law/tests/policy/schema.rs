use leasehold_law::policy::schema::schema_text;

use crate::fixture::catalog;

#[test]
fn the_schema_is_made_of_the_catalog() {
    insta::assert_snapshot!(schema_text(&catalog()));
}
