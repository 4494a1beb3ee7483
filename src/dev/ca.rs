//! The certificate authority of a dev trust domain, and the odd certificates that tests show to a broker.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use leasehold_law::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::DevError;

/// First line of a dev key file. `serve` refuses a file that begins so without `--dev-trust` (RULES R-19).
pub const DEV_KEY_HEADER: &str = "leasehold-dev-key v1";
const KEY_FILE: &str = "ca.key";
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// SVIDs are dated back like SPIRE's, against clocks that differ a little.
const BACKDATE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
/// Path of the broker's SPIFFE ID. Its SVID names `leasehold.<trust domain>` as a host too, as SPIRE writes it for an
/// entry with a DNS name: TLS clients that know no SPIFFE ID check that (docs/interop.md).
const BROKER_PATH: &str = "leasehold";

/// What kind of leaf to sign. All but `Good` are refused by a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A proper X.509-SVID.
    Good,
    /// Its notAfter has passed.
    Expired,
    /// Its notBefore is to come.
    NotYetValid,
    /// Two SPIFFE IDs.
    TwoUris,
    /// A SPIFFE ID and a web address.
    SpiffeAndHttps,
    /// A DNS name only.
    NoUri,
    /// The trust domain itself, without a path.
    NoPath,
    /// Without BasicConstraints.
    NoBasicConstraints,
    /// Without KeyUsage.
    NoKeyUsage,
}

/// A certificate with its key, as a Workload API hands it out.
#[derive(Clone)]
pub struct DevSvid {
    id: String,
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl DevSvid {
    /// The SPIFFE ID that was asked for; an odd shape may say something else.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// DER of the leaf.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// PKCS#8 DER of the private key. Secret, though a dev one.
    pub fn expose_key(&self) -> &[u8] {
        &self.key
    }
}

impl fmt::Debug for DevSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevSvid").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A certificate authority for one trust domain.
pub struct DevCa {
    trust_domain: String,
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl DevCa {
    /// A new authority in memory. Two of one trust domain do not trust each other's leaves.
    ///
    /// # Errors
    /// [`DevError::Certificate`] where the name does not fit into a certificate.
    pub fn generate(trust_domain: &str, now: Timestamp) -> Result<Self, DevError> {
        Ok(Self::make(trust_domain, now)?.0)
    }

    /// A new authority, and its certificate as PEM for the key file.
    fn make(trust_domain: &str, now: Timestamp) -> Result<(Self, String), DevError> {
        let key = KeyPair::generate()?;
        let mut params = authority(trust_domain)?;
        params.not_before = moment(now) - HOUR;
        params.not_after = moment(now) + CA_LIFE;
        let own = params.self_signed(&key)?;
        let (certificate, issuer) = (own.der().to_vec(), Issuer::new(params, key));
        Ok((Self { trust_domain: trust_domain.to_owned(), certificate, issuer }, own.pem()))
    }

    /// The authority kept in `dir`, made on first use: file 0600, folder 0700. Processes that start at the same
    /// moment agree on one.
    ///
    /// # Errors
    /// [`DevError::NotADevTrustDomain`], or what is wrong with folder or file.
    pub fn load_or_create(dir: &Path, trust_domain: &str, now: Timestamp) -> Result<Self, DevError> {
        if !crate::identity::spiffe::is_dev_trust_domain(trust_domain) {
            return Err(DevError::NotADevTrustDomain { trust_domain: trust_domain.to_owned() });
        }
        let path = dir.join(KEY_FILE);
        if !path.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io_error(dir, e))?;
            let (ca, pem) = Self::make(trust_domain, now)?;
            ca.store(&path, &pem).map_err(|e| io_error(&path, e))?;
        }
        Self::load(&path, trust_domain)
    }

    fn load(path: &Path, trust_domain: &str) -> Result<Self, DevError> {
        let found = fs::metadata(path).map_err(|e| io_error(path, e))?.mode() & 0o777;
        if found & 0o177 != 0 {
            return Err(DevError::KeyFileTooOpen { path: path.display().to_string(), found });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|e| io_error(path, e))?);
        let bad = |reason: String| DevError::BadKeyFile { path: path.display().to_string(), reason };
        let pem = text.strip_prefix(DEV_KEY_HEADER).ok_or_else(|| bad(format!("no `{DEV_KEY_HEADER}`")))?;
        let key = KeyPair::from_pem(pem).map_err(|e| bad(e.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let issuer = Issuer::new(authority(trust_domain)?, key);
        Ok(Self { trust_domain: trust_domain.to_owned(), certificate: certificate.to_vec(), issuer })
    }

    /// Writes the whole file aside and links it into place; whoever comes second keeps the first one's.
    fn store(&self, path: &Path, certificate: &str) -> io::Result<()> {
        let aside = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        let text = Zeroizing::new(format!("{DEV_KEY_HEADER}\n{}\n{certificate}", key.as_str()));
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let linked = written.and_then(|()| match fs::hard_link(&aside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        fs::remove_file(&aside).and(linked)
    }

    /// What signs, for leaves of any shape.
    #[cfg(test)]
    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The name of the trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// DER of the authority's certificate: the trust bundle.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Signs a leaf for `spiffe://<trust domain><path>`, good from shortly before `now` for `ttl`.
    ///
    /// # Errors
    /// [`DevError::Certificate`] where the path does not fit into a certificate.
    pub fn sign(&self, path: &str, shape: Shape, now: Timestamp, ttl: Duration) -> Result<DevSvid, DevError> {
        self.sign_id(&format!("spiffe://{}{path}", self.trust_domain), shape, now, ttl)
    }

    /// As [`DevCa::sign`], for any SPIFFE ID, even of a trust domain that is not this authority's.
    ///
    /// # Errors
    /// [`DevError::Certificate`] where the id does not fit into a certificate.
    pub fn sign_id(
        &self,
        id: &str,
        shape: Shape,
        now: Timestamp,
        ttl: Duration,
    ) -> Result<DevSvid, DevError> {
        let key = KeyPair::generate()?;
        let certificate = leaf(id, shape, moment(now), ttl)?.signed_by(&key, &self.issuer)?;
        let key = Zeroizing::new(key.serialize_der());
        Ok(DevSvid { id: id.to_owned(), certificate: certificate.der().to_vec(), key })
    }
}

fn authority(trust_domain: &str) -> Result<CertificateParams, DevError> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, format!("Leasehold dev CA of {trust_domain}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
    Ok(params)
}

/// A leaf in SPIRE's shape, but for what `shape` takes away.
fn leaf(id: &str, shape: Shape, now: OffsetDateTime, ttl: Duration) -> Result<CertificateParams, DevError> {
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = validity(shape, now, ttl);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Leasehold dev");
    params.subject_alt_names = names(id, shape)?;
    // `NoCa` would leave BasicConstraints out, and verifiers want to see it.
    params.is_ca = if shape == Shape::NoBasicConstraints { IsCa::NoCa } else { IsCa::ExplicitNoCa };
    if shape != Shape::NoKeyUsage {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn validity(shape: Shape, now: OffsetDateTime, ttl: Duration) -> (OffsetDateTime, OffsetDateTime) {
    match shape {
        Shape::Expired => (now - HOUR - ttl, now - HOUR),
        Shape::NotYetValid => (now + HOUR, now + HOUR + ttl),
        Shape::Good
        | Shape::TwoUris
        | Shape::SpiffeAndHttps
        | Shape::NoUri
        | Shape::NoPath
        | Shape::NoBasicConstraints
        | Shape::NoKeyUsage => (now - BACKDATE, now + ttl),
    }
}

fn names(id: &str, shape: Shape) -> Result<Vec<SanType>, DevError> {
    let domain = || id.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    Ok(match shape {
        Shape::TwoUris => vec![uri(id)?, uri(&format!("{id}/other"))?],
        Shape::SpiffeAndHttps => vec![uri(id)?, uri("https://leasehold.test/")?],
        Shape::NoUri => vec![SanType::DnsName("localhost".try_into()?)],
        Shape::NoPath => vec![uri(&domain())?],
        Shape::Good | Shape::Expired | Shape::NotYetValid | Shape::NoBasicConstraints | Shape::NoKeyUsage => {
            std::iter::once(uri(id)).chain(host(id)).collect::<Result<_, _>>()?
        }
    })
}

/// The host name that goes with the broker's id.
fn host(id: &str) -> Option<Result<SanType, DevError>> {
    let (trust_domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    if path != BROKER_PATH {
        return None;
    }
    let name = format!("leasehold.{trust_domain}");
    Some(name.try_into().map(SanType::DnsName).map_err(DevError::from))
}

fn uri(text: &str) -> Result<SanType, DevError> {
    Ok(SanType::URI(text.try_into()?))
}

fn moment(at: Timestamp) -> OffsetDateTime {
    let nanos = i128::from(at.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn io_error(path: &Path, source: io::Error) -> DevError {
    DevError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const DOMAIN: &str = "t.leasehold.test";

    #[test]
    fn the_authority_is_kept_and_shared() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("dev");
        let first = DevCa::load_or_create(&dir, DOMAIN, NOW).unwrap();
        let second = DevCa::load_or_create(&dir, DOMAIN, NOW).unwrap();
        assert_eq!(first.certificate(), second.certificate());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(KEY_FILE))), (0o700, 0o600));
        assert!(fs::read_to_string(dir.join(KEY_FILE)).unwrap().starts_with("leasehold-dev-key v1\n"));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_file_that_others_read_or_that_is_cut_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        DevCa::load_or_create(dir.path(), DOMAIN, NOW).unwrap();
        let path = dir.path().join(KEY_FILE);
        let whole = fs::read_to_string(&path).unwrap();
        for cut in [0, 10, whole.len() / 2] {
            fs::write(&path, &whole[..cut]).unwrap();
            let loaded = DevCa::load_or_create(dir.path(), DOMAIN, NOW);
            assert!(matches!(loaded, Err(DevError::BadKeyFile { .. })), "{cut} bytes: {loaded:?}");
        }
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let loaded = DevCa::load_or_create(dir.path(), DOMAIN, NOW);
        assert!(matches!(loaded, Err(DevError::KeyFileTooOpen { found: 0o640, .. })), "{loaded:?}");
    }

    #[test]
    fn a_real_trust_domain_gets_no_dev_key() {
        let dir = tempfile::tempdir().unwrap();
        let made = DevCa::load_or_create(dir.path(), "prod.example", NOW);
        assert!(matches!(made, Err(DevError::NotADevTrustDomain { .. })), "{made:?}");
    }

    #[test]
    fn the_broker_alone_names_a_host() {
        let ca = DevCa::generate(DOMAIN, NOW).unwrap();
        let names = |path: &str| {
            let svid = ca.sign(path, Shape::Good, NOW, HOUR).unwrap();
            let (_, leaf) = x509_parser::parse_x509_certificate(svid.certificate()).unwrap();
            let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let broker = ["URI(spiffe://t.leasehold.test/leasehold)", "DNSName(leasehold.t.leasehold.test)"];
        assert_eq!(names("/leasehold"), broker);
        assert_eq!(names("/agent/leasehold"), ["URI(spiffe://t.leasehold.test/agent/leasehold)"]);
    }

    #[test]
    fn no_key_is_shown() {
        let ca = DevCa::generate(DOMAIN, NOW).unwrap();
        let svid = ca.sign("/a", Shape::Good, NOW, HOUR).unwrap();
        assert_eq!(format!("{svid:?}"), "DevSvid { id: \"spiffe://t.leasehold.test/a\", .. }");
        assert_eq!(format!("{ca:?}"), "DevCa { trust_domain: \"t.leasehold.test\", .. }");
    }
}
