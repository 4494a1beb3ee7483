//! `Debug` for messages that carry a secret. Each takes its message apart in full, so that a field added to a
//! proto does not compile until somebody has said here whether it may be printed.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use crate::v1::{Credential, OnBehalfOf, RenewLeaseResponse, RequestLeaseResponse};
use crate::workload::{Jwtsvid, ValidateJwtsvidRequest, X509svid};

/// Prints in place of a secret, its length too.
struct Redacted;

impl Debug for Redacted {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Prints the names of secrets without their values.
struct Names<'a>(&'a BTreeMap<String, Vec<u8>>);

impl Debug for Names<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, Redacted))).finish()
    }
}

impl Debug for Credential {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, public, secret } = self;
        f.debug_struct("Credential")
            .field("kind", kind)
            .field("public", public)
            .field("secret", &Names(secret))
            .finish()
    }
}

impl Debug for RequestLeaseResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { lease, credential, limited_by: _, grade: _, window } = self;
        f.debug_struct("RequestLeaseResponse")
            .field("lease", lease)
            .field("credential", credential)
            .field("limited_by", &self.limited_by())
            .field("grade", &self.grade())
            .field("window", window)
            .finish()
    }
}

impl Debug for RenewLeaseResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { lease, credential, limited_by: _ } = self;
        f.debug_struct("RenewLeaseResponse")
            .field("lease", lease)
            .field("credential", credential)
            .field("limited_by", &self.limited_by())
            .finish()
    }
}

impl Debug for OnBehalfOf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { token: _ } = self;
        f.debug_struct("OnBehalfOf").field("token", &Redacted).finish()
    }
}

impl Debug for X509svid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // Certificates are public, but as bytes they say nothing to a reader.
        let Self { spiffe_id, x509_svid: _, x509_svid_key: _, bundle: _, hint } = self;
        f.debug_struct("X509svid")
            .field("spiffe_id", spiffe_id)
            .field("x509_svid_key", &Redacted)
            .field("hint", hint)
            .finish_non_exhaustive()
    }
}

impl Debug for Jwtsvid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { spiffe_id, svid: _, hint } = self;
        f.debug_struct("Jwtsvid")
            .field("spiffe_id", spiffe_id)
            .field("svid", &Redacted)
            .field("hint", hint)
            .finish()
    }
}

impl Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { audience, svid: _ } = self;
        f.debug_struct("ValidateJwtsvidRequest").field("audience", audience).field("svid", &Redacted).finish()
    }
}
