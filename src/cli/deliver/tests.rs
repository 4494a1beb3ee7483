use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

use leasehold_client::v1;

use super::*;

pub(crate) fn postgres(password: &str) -> Credential {
    let public = [("host", "db1.internal"), ("port", "6432"), ("dbname", "orders"), ("user", "lh9fk2")];
    let public = public.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let secret = BTreeMap::from([("password".to_owned(), password.as_bytes().to_vec())]);
    Credential::from(v1::Credential { kind: "postgres".to_owned(), public, secret })
}

fn check(password: &str, shape: Shape, expect: &str) {
    let rendered = render(&postgres(password), shape).unwrap();
    assert_eq!(String::from_utf8_lossy(&rendered), expect);
}

#[test]
fn each_shape_is_what_its_reader_takes() {
    check("s3cret", Shape::Dsn, "postgresql://lh9fk2:s3cret@db1.internal:6432/orders\n");
    check("s3cret", Shape::Pgpass, "db1.internal:6432:orders:lh9fk2:s3cret\n");
    check(r"a:b\c", Shape::Pgpass, "db1.internal:6432:orders:lh9fk2:a\\:b\\\\c\n");
    check("s3cret", Shape::Raw, "s3cret");
    let env = "export PGDATABASE='orders'\nexport PGHOST='db1.internal'\nexport PGPORT='6432'\n\
               export PGUSER='lh9fk2'\nexport PGPASSWORD='it'\\''s'\n";
    check("it's", Shape::Env, env);
}

#[test]
fn a_credential_of_two_secrets_has_no_raw_shape() {
    let secret = ["a", "b"].map(|name| (name.to_owned(), b"x".to_vec())).into();
    let credential =
        Credential::from(v1::Credential { kind: "memory".into(), public: BTreeMap::new(), secret });
    assert!(render(&credential, Shape::Raw).is_err());
    let env = render(&credential, Shape::Env).unwrap();
    assert_eq!(String::from_utf8_lossy(&env), "export MEMORY_A='x'\nexport MEMORY_B='x'\n");
}

fn check_place(text: &str, expect: Option<&Place>) {
    assert_eq!(place(text).ok().as_ref(), expect, "{text}");
}

#[test]
fn places_are_read_strictly() {
    check_place("file:/run/x", Some(&Place::File("/run/x".into())));
    check_place("fd:3", Some(&Place::Fd(3)));
    for bad in ["fd:1", "fd:-1", "fd:x", "file:", "/run/x", ""] {
        check_place(bad, None);
    }
}

fn to(path: &Path) -> DeliverArgs {
    DeliverArgs { shape: Shape::Raw, to: Some(Place::File(path.to_owned())), reveal: false }
}

#[test]
fn a_secret_file_is_new_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let mut sink = to(&path).open().unwrap().unwrap();
    sink.fill(b"s3cret").unwrap();
    drop(sink);
    assert_eq!(fs::read(&path).unwrap(), b"s3cret");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(to(&path).open().is_err(), "a file that is there is not written over");
}

#[test]
fn a_link_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
    assert!(to(&path).open().is_err());
}

#[test]
fn an_unfilled_file_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    drop(to(&path).open().unwrap());
    assert!(!path.exists());
}
