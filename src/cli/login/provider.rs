//! Where to sign in: flags, else the environment, else `client.toml` in the user's config folder.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::problem::Problem;

/// Where to sign in.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ProviderArgs {
    /// The issuer, as it writes itself: `https://idp.example`.
    #[arg(long, value_name = "URL", env = "LEASEHOLD_ISSUER")]
    pub(crate) issuer: Option<String>,
    /// What this program is called there.
    #[arg(long, value_name = "ID", env = "LEASEHOLD_CLIENT_ID")]
    pub(crate) client_id: Option<String>,
    /// Certificates to trust instead of the system's, for an issuer of your own.
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_ISSUER_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// What else to ask the issuer for, such as `groups`. May be given again.
    #[arg(long = "scope", value_name = "WORD")]
    pub(crate) scopes: Vec<String>,
}

/// An issuer, and what this program is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    /// The issuer, to the letter.
    pub(crate) issuer: String,
    /// This program's name there, which is the audience of the tokens that it gets.
    pub(crate) client_id: String,
    /// What to trust instead of the system's certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// What to ask for beside `openid` and `offline_access`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scopes: Vec<String>,
}

impl ProviderArgs {
    /// The provider to sign in to.
    pub(crate) fn provider(self) -> Result<Provider, Problem> {
        let file = match config_file() {
            Some(path) => read(&path)?,
            None => None,
        };
        self.over(file.unwrap_or_default())
    }

    /// What is given goes before what the file says. A client and its certificates belong to the issuer in the file: they
    /// are not taken for another one.
    fn over(self, file: Provider) -> Result<Provider, Problem> {
        let file = match &self.issuer {
            Some(issuer) if *issuer != file.issuer => Provider::default(),
            Some(_) | None => file,
        };
        let issuer = self.issuer.unwrap_or(file.issuer);
        let client_id = self.client_id.unwrap_or(file.client_id);
        let scopes = if self.scopes.is_empty() { file.scopes } else { self.scopes };
        let provider = Provider { issuer, client_id, ca_file: self.ca_file.or(file.ca_file), scopes };
        provider.checked()
    }
}

impl Provider {
    fn checked(self) -> Result<Self, Problem> {
        if self.issuer.is_empty() || self.client_id.is_empty() {
            let missing = if self.issuer.is_empty() { "issuer" } else { "client" };
            return Err(Problem::usage(format!("no {missing} is named: where would you sign in?")).next(
                "leasehold login --issuer https://idp.example --client-id leasehold-cli; or write both into \
                 ~/.config/leasehold/client.toml, as `issuer = \"...\"` and `client_id = \"...\"`",
            ));
        }
        if !self.issuer.starts_with("https://") {
            return Err(Problem::usage(format!("`{}` is not an issuer", self.issuer))
                .next("write it as it writes itself, like `https://idp.example`"));
        }
        Ok(self)
    }
}

fn read(path: &Path) -> Result<Option<Provider>, Problem> {
    let unusable = |why: String| Problem::usage(format!("`{}` cannot be used", path.display())).why(why);
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| unusable(error.message().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(error.to_string())),
    }
}

fn config_file() -> Option<PathBuf> {
    folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("client.toml"))
}

/// A folder of ours below one of the user's (XDG Base Directory Specification); relative ones do not count.
pub(super) fn folder(variable: &str, otherwise: &str) -> Option<PathBuf> {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = given(variable).or_else(|| given("HOME").map(|home| home.join(otherwise)))?;
    Some(base.join("leasehold"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Provider {
        Provider {
            issuer: "https://idp.example".into(),
            client_id: "leasehold".into(),
            ca_file: Some("/etc/idp.pem".into()),
            scopes: vec!["groups".into()],
        }
    }

    fn issuer(url: &str) -> ProviderArgs {
        ProviderArgs { issuer: Some(url.into()), ..ProviderArgs::default() }
    }

    #[test]
    fn the_file_says_what_nobody_else_does() {
        assert_eq!(ProviderArgs::default().over(file()), Ok(file()));
        assert_eq!(issuer("https://idp.example").over(file()), Ok(file()));
        let given = ProviderArgs { client_id: Some("other".into()), ..ProviderArgs::default() };
        assert_eq!(given.over(file()).unwrap().client_id, "other");
    }

    #[test]
    fn another_issuer_gets_nothing_of_the_file() {
        let problem = issuer("https://other.example").over(file()).unwrap_err();
        assert!(problem.what.contains("no client is named"), "{}", problem.what);
        let args = ProviderArgs { client_id: Some("x".into()), ..issuer("https://other.example") };
        let other = args.over(file()).unwrap();
        assert_eq!((other.ca_file, other.scopes), (None, vec![]));
    }

    #[test]
    fn an_issuer_is_https() {
        assert!(issuer("http://idp.example").over(Provider::default()).is_err());
        let plain = ProviderArgs { client_id: Some("x".into()), ..issuer("http://idp.example") };
        assert!(plain.over(Provider::default()).unwrap_err().what.contains("is not an issuer"));
        assert!(ProviderArgs::default().over(Provider::default()).is_err());
    }
}
