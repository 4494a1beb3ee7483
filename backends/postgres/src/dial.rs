//! How a connection is made: over TLS or not, with the password that its file holds now, and with its functions.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::Connect;
use leasehold_backend::Problem;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Connection, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use crate::claim::Expected;
use crate::config::Settings;

/// Makes the connections of a pool.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) password: Option<Arc<PasswordFile>>,
    /// Statements that each new session runs first.
    pub(crate) first: Option<String>,
    /// Whose the server must be, and whether it must while that is not known.
    pub(crate) expected: Option<(Arc<Expected>, bool)>,
}

impl Connect for Dial {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let mut config = config.clone();
        if let Some(password) = &self.password {
            config.password(password.now().as_slice());
        }
        Box::pin(async move {
            let (client, task) = match &self.tls {
                Some(tls) => serve(config.connect(connector(tls)).await?),
                None => serve(config.connect(NoTls).await?),
            };
            if let Some(first) = &self.first {
                client.batch_execute(first).await?;
            }
            let check = self.expected.as_ref().and_then(|(expected, strictly)| expected.check(*strictly));
            if let Some(check) = check {
                client.batch_execute(&check).await?;
            }
            Ok((client, task))
        })
    }
}

/// What went wrong with a connection is heard by whoever waits for its answer.
pub(crate) fn serve<S, T>((client, connection): (Client, Connection<S, T>)) -> (Client, JoinHandle<()>)
where
    Connection<S, T>: Future<Output = Result<(), Error>> + Send + 'static,
    S: AsyncRead + AsyncWrite,
{
    (client, tokio::spawn(async move { drop(connection.await) }))
}

/// TLS for one connection.
pub(crate) fn connector(tls: &Arc<ClientConfig>) -> MakeRustlsConnect {
    MakeRustlsConnect::new(ClientConfig::clone(tls))
}

/// The broker's own password. It may change while the broker runs: then the file is changed, and each new connection
/// takes what it holds.
pub(crate) struct PasswordFile {
    path: PathBuf,
    first: Zeroizing<Vec<u8>>,
}

impl PasswordFile {
    /// Reads it.
    ///
    /// # Errors
    /// Where the file cannot be read, or is empty.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Arc<Self>>, Problem> {
        let Some(path) = settings.password_file.clone() else { return Ok(None) };
        let first = read(&path).map_err(|what| Problem::new("/admin/password_file", what))?;
        Ok(Some(Arc::new(Self { path, first })))
    }

    /// A file that is being replaced, or is gone, leaves the password with which the broker began.
    fn now(&self) -> Zeroizing<Vec<u8>> {
        read(&self.path).unwrap_or_else(|_| self.first.clone())
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(std::fs::read(path).map_err(|error| unreadable(path, &error))?);
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() { Err(format!("`{}` is empty", path.display())) } else { Ok(bytes) }
}

/// The roots under which the server proves its name.
///
/// # Errors
/// Where the file cannot be read, or holds something else.
pub(crate) fn tls_of(settings: &Settings) -> Result<Option<Arc<ClientConfig>>, Problem> {
    let Some(path) = &settings.roots else { return Ok(None) };
    let problem = |what: String| Problem::new("/connect/sslrootcert", what);
    let pem = std::fs::read(path).map_err(|error| problem(unreadable(path, &error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|der| roots.add(der).map_err(|error| error.to_string()));
        added.map_err(|error| problem(format!("`{}` holds something else: {error}", path.display())))?;
    }
    if roots.is_empty() {
        return Err(problem(format!("`{}` holds no certificate", path.display())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| problem(error.to_string()))?;
    Ok(Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("`{}` cannot be read: {error}", path.display())
}
