//! Looks for bytes in files, in the forms in which programs write them down.

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::story::Seen;

/// How often a text stands in these files.
pub(super) fn count(files: &[PathBuf], text: &str) -> Seen<usize> {
    let mut hits = 0;
    for file in files {
        // What is no text is none of ours: what is looked for is plain ASCII.
        hits += String::from_utf8_lossy(&std::fs::read(file)?).matches(text).count();
    }
    Ok(hits)
}

/// How often a secret stands there: plain, in hexadecimal, in base64, or as a list of numbers.
pub(super) fn count_secret(files: &[PathBuf], secret: &[u8]) -> Seen<usize> {
    let mut hits = 0;
    for form in forms(secret) {
        hits += count(files, &form)?;
    }
    Ok(hits)
}

fn forms(secret: &[u8]) -> [String; 4] {
    let base64 = BASE64_STANDARD.encode(secret);
    // The last group of base64 depends on what follows.
    let base64 = base64.get(..secret.len() / 3 * 4).unwrap_or_default().to_owned();
    let numbers: Vec<_> = secret.iter().map(ToString::to_string).collect();
    let hexadecimal = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    [String::from_utf8_lossy(secret).into_owned(), hexadecimal, base64, numbers.join(", ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        let check = |text: &[u8], hits: usize| {
            std::fs::write(&file, text).unwrap();
            assert_eq!(count_secret(std::slice::from_ref(&file), b"s3cret!").unwrap(), hits, "{text:?}");
        };
        check(b"\xff\x00user:s3cret!\x00", 1);
        check(b"s3cret", 0);
        check(b"7333637265742 73336372657421", 1);
        check(BASE64_STANDARD.encode("s3cret! and more").as_bytes(), 1);
        check(format!("{:?}", b"s3cret!".to_vec()).as_bytes(), 1);
    }
}
