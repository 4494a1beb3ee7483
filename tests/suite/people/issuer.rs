//! The provider: a process of its own, https by a throwaway CA.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::interop::tools::{cache, fetch, root, run, skip};
use crate::web::write_certificate;

/// What starting may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

/// An OpenID provider that runs until it is dropped.
pub(crate) struct Provider {
    /// The issuer.
    pub(crate) url: String,
    /// Its certificate authority.
    pub(crate) ca: PathBuf,
    /// A client that trusts it and follows no redirect.
    pub(crate) http: reqwest::Client,
    _dir: TempDir,
    _child: Child,
}

impl Provider {
    /// Starts one whose ID tokens live so long; none, and a line that says so, where node or its packages are missing.
    pub(crate) async fn start(id_tokens: Duration) -> Option<Self> {
        match packages().await {
            Ok(folder) => Some(Self::run(&folder, id_tokens).await),
            Err(missing) => {
                skip("an OpenID provider", &missing);
                None
            }
        }
    }

    async fn run(folder: &Path, id_tokens: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_certificate(dir.path());
        let [ca, certificate, key] = ["web-ca.pem", "web.pem", "web.key"].map(|name| dir.path().join(name));
        let mut command = Command::new("node");
        command
            .arg(folder.join("issuer.mjs"))
            .args([&certificate, &key])
            .arg(id_tokens.as_secs().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let serving = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the provider ended");
                if let Some(url) = line.strip_prefix("serving ") {
                    return url.to_owned();
                }
            }
        };
        let url = tokio::time::timeout(PATIENCE, serving).await.expect("the provider does not start");
        let http = client(&ca);
        Self { url, ca, http, _dir: dir, _child: child }
    }

    /// What the provider answers to a token to renew with.
    pub(crate) async fn renews(&self, refresh_token: &str) -> u16 {
        let form = format!("grant_type=refresh_token&client_id=leasehold&refresh_token={refresh_token}");
        let request = self.http.post(format!("{}/token", self.url)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.send().await.unwrap().status().as_u16()
    }
}

fn client(ca: &Path) -> reqwest::Client {
    _ = rustls::crypto::ring::default_provider().install_default();
    let roots = reqwest::Certificate::from_pem_bundle(&std::fs::read(ca).unwrap()).unwrap();
    let builder = reqwest::Client::builder().tls_certs_only(roots).no_proxy();
    builder.redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build().unwrap()
}

/// The folder with the program and its packages, as the lock file pins them; or what is missing.
async fn packages() -> Result<PathBuf, String> {
    static PACKAGES: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    PACKAGES.get_or_init(install).await.clone()
}

async fn install() -> Result<PathBuf, String> {
    run(Command::new("node").arg("--version")).await?;
    let (from, folder) = (root().join("tests/oidc"), cache().join("oidc"));
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::read_to_string(from.join("package-lock.json")).unwrap();
    let stamp = folder.join("installed.json");
    for file in ["package.json", "package-lock.json", "issuer.mjs"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(folder);
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&folder).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    fetch(&mut npm).await?;
    std::fs::write(stamp, lock).unwrap();
    Ok(folder)
}
