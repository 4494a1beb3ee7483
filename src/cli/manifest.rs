//! A manifest file: what an agent runs, by model, prompt and tools; and the digest of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use leasehold_client::Manifest;
use serde::Deserialize;

use super::problem::Problem;

/// How a digest begins.
const DIGEST: &str = "sha256:";

/// What the command says that it runs.
#[derive(Debug, Default, Args)]
pub(crate) struct ManifestArgs {
    /// What the agent runs: a file as `agents digest` reads it, or its digest. Where an operator has accepted another
    /// one, the agent may do less.
    #[arg(long, value_name = "FILE|DIGEST", env = "LEASEHOLD_MANIFEST")]
    manifest: Option<String>,
}

impl ManifestArgs {
    /// The digest to tell the broker, if any.
    pub(crate) fn digest(&self) -> Result<Option<String>, Problem> {
        digest(self.manifest.as_deref())
    }
}

/// The digest that a text is, or that of the file that it names.
pub(crate) fn digest(manifest: Option<&str>) -> Result<Option<String>, Problem> {
    match manifest.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(digest) if digest.starts_with(DIGEST) => Ok(Some(digest.to_owned())),
        Some(file) => Ok(Some(read(Path::new(file))?.digest())),
    }
}

/// What the file holds. Prompt and tools are files of their own, named from where it stands.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    model: String,
    prompt: Option<PathBuf>,
    #[serde(default)]
    tools: BTreeMap<String, PathBuf>,
}

/// Reads a manifest file, and all that it names.
pub(crate) fn read(path: &Path) -> Result<Manifest, Problem> {
    let text = fs::read_to_string(path).map_err(|error| unusable(path, &error.to_string()))?;
    let parts: Parts = toml::from_str(&text).map_err(|error| unusable(path, error.message()))?;
    if parts.model.trim().is_empty() {
        return Err(unusable(path, "`model` is empty"));
    }
    let bytes = |named: &Path| {
        let named = path.parent().unwrap_or(Path::new("")).join(named);
        fs::read(&named).map_err(|error| unusable(&named, &error.to_string()))
    };
    let mut manifest = Manifest::new(parts.model);
    if let Some(prompt) = &parts.prompt {
        manifest = manifest.prompt(bytes(prompt)?);
    }
    for (name, definition) in &parts.tools {
        manifest = manifest.tool(name, bytes(definition)?);
    }
    Ok(manifest)
}

fn unusable(path: &Path, why: &str) -> Problem {
    Problem::usage(format!("cannot use `{}` as a manifest", path.display()))
        .why(why)
        .next("it says model = \"NAME\", prompt = \"FILE\", and under [tools] NAME = \"FILE\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_parts_from_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("agent.toml", "model = \"m-1\"\nprompt = \"prompt.md\"\n[tools]\nsearch = \"search.json\"\n");
        let file = folder.path().join("agent.toml");
        assert!(read(&file).unwrap_err().what.contains("prompt.md"), "a part that is not there is named");
        write("prompt.md", "be kind");
        write("search.json", "{}");
        let manifest = Manifest::new("m-1").prompt("be kind").tool("search", "{}");
        assert_eq!(read(&file).unwrap(), manifest);
        let args = |manifest: &str| ManifestArgs { manifest: Some(manifest.to_owned()) };
        let digest = manifest.digest();
        assert_eq!(args(file.to_str().unwrap()).digest().unwrap().as_deref(), Some(digest.as_str()));
        assert_eq!(args(&digest).digest().unwrap().as_deref(), Some(digest.as_str()));
        assert_eq!(ManifestArgs { manifest: None }.digest().unwrap(), None);
    }

    /// Each file, and why it is no manifest. `prompt.md` is there, and nothing else is.
    const REFUSED: &[(&str, &str)] = &[
        ("", "missing field `model`"),
        ("model = \"\"", "`model` is empty"),
        ("model = \" \"", "`model` is empty"),
        ("model = 7", "invalid type: integer `7`, expected a string"),
        ("model = \"m\"\nmodel = \"n\"", "duplicate key"),
        (
            "model = \"m\"\nprompts = \"prompt.md\"",
            "unknown field `prompts`, expected one of `model`, `prompt`, `tools`",
        ),
        ("model = \"m\"\nprompt = [\"prompt.md\"]", "invalid type: sequence, expected path string"),
        ("model = \"m\"\nprompt = \"gone.md\"", "No such file or directory (os error 2)"),
        ("model = \"m\"\nprompt = \"\"", "Is a directory (os error 21)"),
        ("model = \"m\"\ntools = [\"search\"]", "invalid type: sequence, expected a map"),
        ("model = \"m\"\n[tools]\nsearch = 1", "invalid type: integer `1`, expected path string"),
        ("model = \"m\"\n[tools]\nsearch = \"gone.json\"", "No such file or directory (os error 2)"),
        ("model = \"m\"\n[tools.search]\nfile = \"prompt.md\"", "invalid type: map, expected path string"),
        ("model = \"m", "invalid basic string, expected `\"`"),
        ("{\"model\": \"m\"}", "invalid key-value pair, expected key"),
    ];

    #[test]
    fn what_is_no_manifest_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        fs::write(folder.path().join("prompt.md"), "be kind").unwrap();
        let why = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            read(&file).unwrap_err().why.unwrap()
        };
        for (text, reason) in REFUSED {
            assert_eq!(&*why(text.as_bytes()), *reason, "{text}");
        }
        assert_eq!(&*why(b"model = \"\xff\""), "stream did not contain valid UTF-8");
    }
}
