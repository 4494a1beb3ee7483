//! Where the broker is, and how patient a client is with it.

use std::path::PathBuf;
use std::time::Duration;

/// How a client reaches a broker. [`Options::from_env`] reads what `leasehold dev env` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// The SPIFFE Workload API, `unix:/path` (`SPIFFE_ENDPOINT_SOCKET`).
    pub workload_api: Option<String>,
    /// The agents' door (`LEASEHOLD_ADDR`): `host:port` for callers with an SVID, `https://host:port` for those that come
    /// with a token.
    pub addr: String,
    /// The roots under which a door for tokens proves itself, as a PEM file (`LEASEHOLD_CA_FILE`); the system's when
    /// `None`.
    pub ca_file: Option<PathBuf>,
    /// A file with the token to come with (`LEASEHOLD_TOKEN_FILE`), read anew whenever one is needed.
    pub token_file: Option<PathBuf>,
    /// A file with the key that proves the calls with a token (`LEASEHOLD_KEY_FILE`), made with mode 0600 where there is
    /// none. A token counts with the first key that it came with, so processes that come with the same one need one key:
    /// SPIRE's agent gives all processes of a workload the same JWT-SVID for minutes, and so does whatever keeps a
    /// `token_file`. Without it each client has a key of its own. A person's session has its own key, whatever this says.
    pub key_file: Option<PathBuf>,
    /// The audience of the token to come with (`LEASEHOLD_AUDIENCE`); `None` for the usual one: `leasehold-ci` for a job of
    /// a CI platform, `leasehold` for everybody else.
    pub audience: Option<String>,
    /// The SPIFFE ID that the broker must prove (`LEASEHOLD_SERVER_ID`); `spiffe://<own trust domain>/leasehold`
    /// when `None`.
    pub server_id: Option<String>,
    /// The admin door, `unix:/path` or `host:port` (`LEASEHOLD_ADMIN_ADDR`).
    pub admin_addr: String,
    /// How long connecting may take.
    pub dial_timeout: Duration,
    /// How long one call may take, its waiting on the broker's side included.
    pub call_timeout: Duration,
    /// How long calls that are safe to repeat are repeated, all tries together.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workload_api: None,
            addr: "127.0.0.1:8443".to_owned(),
            ca_file: None,
            token_file: None,
            key_file: None,
            audience: None,
            server_id: None,
            admin_addr: "unix:/run/leasehold/admin.sock".to_owned(),
            dial_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(45),
            patience: Duration::from_secs(30),
        }
    }
}

impl Options {
    /// The options that the environment names, defaults for the rest.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_lookup(|key| std::env::var(key).ok())
    }

    /// Whether the agents' door is one for tokens.
    #[must_use]
    pub fn takes_tokens(&self) -> bool {
        self.addr.starts_with("https://")
    }

    /// As [`Options::from_env`], from any table of variables. An empty variable counts as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let given = |key: &str| lookup(key).filter(|value| !value.is_empty());
        let defaults = Self::default();
        Self {
            workload_api: given("SPIFFE_ENDPOINT_SOCKET"),
            addr: given("LEASEHOLD_ADDR").unwrap_or(defaults.addr),
            ca_file: given("LEASEHOLD_CA_FILE").map(PathBuf::from),
            token_file: given("LEASEHOLD_TOKEN_FILE").map(PathBuf::from),
            key_file: given("LEASEHOLD_KEY_FILE").map(PathBuf::from),
            audience: given("LEASEHOLD_AUDIENCE"),
            server_id: given("LEASEHOLD_SERVER_ID"),
            admin_addr: given("LEASEHOLD_ADMIN_ADDR").unwrap_or(defaults.admin_addr),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        assert_eq!(Options::from_lookup(|_| Some(String::new())), Options::default());
    }

    #[test]
    fn each_variable_has_its_place() {
        let read = Options::from_lookup(|key| Some(key.to_lowercase()));
        assert_eq!(read.workload_api.as_deref(), Some("spiffe_endpoint_socket"));
        assert_eq!(read.addr, "leasehold_addr");
        assert_eq!(read.server_id.as_deref(), Some("leasehold_server_id"));
        assert_eq!(read.admin_addr, "leasehold_admin_addr");
        assert_eq!(read.ca_file, Some("leasehold_ca_file".into()));
        assert_eq!(read.token_file, Some("leasehold_token_file".into()));
        assert_eq!(read.key_file, Some("leasehold_key_file".into()));
        assert_eq!(read.audience.as_deref(), Some("leasehold_audience"));
    }
}
