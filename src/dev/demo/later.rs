//! Chapter 8: prove it later, without us.

use std::path::{Path, PathBuf};

use leasehold_client::v1;
use leasehold_law::journal::{ChainError, Line, verify};

use super::stage::Stage;
use super::story::{Failure, Seen, Story, ensure};

pub(super) async fn tell(stage: &mut Stage, story: &mut Story<'_>) -> Seen<()> {
    let file = export(stage).await?;
    let broker = stage.broker.take().ok_or_else(|| Failure::new("no broker"))?;
    broker.stop().await?;
    let text = std::fs::read_to_string(&file)?;
    story.claim(16, "audit verify export.jsonl, broker stopped", whole(&text))?;
    story.claim(17, "the same file, one byte flipped", flipped(&text, &file))?;
    Ok(())
}

async fn export(stage: &Stage) -> Seen<PathBuf> {
    let admin = stage.admin().await?;
    let mut stream = admin.call(admin.audit().export(v1::ExportRequest::default())).await?;
    let mut text = Vec::new();
    while let Some(part) = stream.message().await? {
        text.extend(part.lines);
    }
    let file = stage.place.dir.join("export.jsonl");
    std::fs::write(&file, text)?;
    Ok(file)
}

fn whole(text: &str) -> Seen {
    let head = verify(text.lines())?;
    let entries = text.lines().count().saturating_sub(1);
    ensure(entries > 0 && u64::try_from(entries)? == head.seq, || {
        format!("{entries} entries, head {}", head.seq)
    })?;
    Ok(format!("{entries} entries, chain whole"))
}

/// One letter of an entry's body is changed: no more than that, and the JSON is as good as before.
fn flipped(text: &str, file: &Path) -> Seen {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let at = lines.len() * 3 / 5;
    let line = lines.get_mut(at).ok_or_else(|| Failure::new("the export is empty"))?;
    let Line::Entry { seq, .. } = serde_json::from_str(line)? else { return Err(Failure::new("no entry")) };
    *line = flip(line).ok_or_else(|| Failure::new("nothing to flip"))?;
    let forged = lines.join("\n");
    std::fs::write(file.with_file_name("forged.jsonl"), &forged)?;
    match verify(forged.lines()) {
        Ok(_) => Err(Failure::new("the forged file passes")),
        Err(ChainError::Broken(found)) if found == seq => {
            Ok(format!("refused: entry {found} is the first broken one"))
        }
        Err(other) => Err(Failure::new(format!("entry {seq} was changed, and it says: {other}"))),
    }
}

/// The last letter before the end of the body, `a` to `b` and the like: one bit.
fn flip(line: &str) -> Option<String> {
    let body = line.find("\"body\"")?;
    let end = line.rfind("\"hash\"")?;
    let at = line.get(body + 8..end)?.rfind(|letter: char| letter.is_ascii_lowercase())? + body + 8;
    let mut bytes = line.as_bytes().to_vec();
    *bytes.get_mut(at)? ^= 1;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_the_body_is_flipped() {
        let line = r#"{"seq":3,"body":"{\"kind\":\"opened\"}","hash":"00ab"}"#;
        let forged = flip(line).unwrap();
        let differing = line.bytes().zip(forged.bytes()).filter(|(a, b)| a != b).count();
        assert_eq!((differing, forged.len()), (1, line.len()));
        assert_eq!(forged, line.replace("opened", "openee"));
    }
}
