//! A certificate for this machine under a root of its own, as files: what a door for tokens shows, and what its callers
//! trust.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Writes `web.pem` and `web.key` for the broker, and `web-ca.pem` for its callers.
pub(crate) fn write_certificate(dir: &Path) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = root.self_signed(&root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    std::fs::write(dir.join("web-ca.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("web.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("web.key"), key.serialize_pem()).unwrap();
}
