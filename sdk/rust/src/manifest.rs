//! What an agent runs, as one digest: model, prompt and tools. An operator accepts it once; the broker lets the agent do
//! less where it says something else. It is what the agent says of itself, and proves nothing.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

/// Model, prompt and tools of an agent.
///
/// Prompt and tools go in as digests of their bytes, so that nothing of them is told. The digest of the whole is taken
/// over canonical JSON (RFC 8785): `{"model":"..","prompt":"sha256:..","tools":{"name":"sha256:.."},"v":1}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    model: String,
    prompt: Option<String>,
    /// Ordered as RFC 8785 section 3.2.3 has it: by UTF-16 code units.
    tools: BTreeMap<Vec<u16>, (String, String)>,
}

impl Manifest {
    /// The name of the model, with its version.
    #[must_use]
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), prompt: None, tools: BTreeMap::new() }
    }

    /// The bytes of the system prompt.
    #[must_use]
    pub fn prompt(mut self, text: impl AsRef<[u8]>) -> Self {
        self.prompt = Some(fingerprint(text.as_ref()));
        self
    }

    /// One more tool, by its name and the bytes of its definition as the model is given it: a tool that describes itself
    /// anew is another tool. The last of one name counts.
    #[must_use]
    pub fn tool(mut self, name: impl Into<String>, definition: impl AsRef<[u8]>) -> Self {
        let name = name.into();
        let order = name.encode_utf16().collect();
        self.tools.insert(order, (name, fingerprint(definition.as_ref())));
        self
    }

    /// `sha256:` and 64 hexadecimal digits: what the broker is told, and what is reviewed.
    #[must_use]
    pub fn digest(&self) -> String {
        fingerprint(self.canonical().as_bytes())
    }

    /// What the digest is taken over.
    #[must_use]
    pub fn canonical(&self) -> String {
        let tools: Vec<_> = self
            .tools
            .values()
            .map(|(name, digest)| format!("{}:{}", quoted(name), quoted(digest)))
            .collect();
        let prompt = self.prompt.as_deref().map_or("null".to_owned(), quoted);
        format!(
            "{{\"model\":{},\"prompt\":{prompt},\"tools\":{{{}}},\"v\":1}}",
            quoted(&self.model),
            tools.join(",")
        )
    }
}

fn fingerprint(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A text as RFC 8785 section 3.2.2.2 writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of nothing.
    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_canonical_form_is_fixed() {
        let bare = Manifest::new("m-1");
        assert_eq!(bare.canonical(), r#"{"model":"m-1","prompt":null,"tools":{},"v":1}"#);
        assert_eq!(
            bare.digest(),
            "sha256:eff6e4ae1bc14470467d113470fae103bd3e9b1b5f577f4d21779d2e65035b60",
            "whoever computes it elsewhere must come to the same"
        );
        let full = Manifest::new("m\u{1}\"\\\n\u{e9}").prompt("").tool("b", "").tool("a", "");
        let expect = format!(
            r#"{{"model":"m\u0001\"\\\n{}","prompt":"{EMPTY}","tools":{{"a":"{EMPTY}","b":"{EMPTY}"}},"v":1}}"#,
            '\u{e9}'
        );
        assert_eq!(full.canonical(), expect);
    }

    #[test]
    fn order_is_of_no_matter_and_content_is() {
        let base = || Manifest::new("m").prompt("p").tool("a", "1").tool("b", "2");
        assert_eq!(base(), Manifest::new("m").tool("b", "2").tool("a", "1").prompt("p"));
        for other in [
            base().prompt("q"),
            base().tool("a", "2"),
            base().tool("c", ""),
            Manifest::new("n").prompt("p").tool("a", "1").tool("b", "2"),
            Manifest::new("m").tool("a", "1").tool("b", "2"),
        ] {
            assert_ne!(other.digest(), base().digest(), "{other:?}");
        }
    }

    #[test]
    fn names_are_sorted_by_utf_16() {
        let manifest = Manifest::new("m").tool("\u{ff5e}", "").tool("\u{1f600}", "");
        let text = manifest.canonical();
        assert!(text.find('\u{1f600}') < text.find('\u{ff5e}'), "a surrogate is less than U+FF5E");
    }
}
