//! A credential in memory: wiped when dropped, never printed.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::{ClientError, v1};

/// A text that must not be shown. It has no `Debug` and no `Display`; its memory is wiped when it is dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Hand it to the target's client, and to nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What a target gives in exchange for a lease: public parts, and secrets.
pub struct Credential {
    kind: String,
    public: BTreeMap<String, String>,
    secret: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl From<v1::Credential> for Credential {
    fn from(wire: v1::Credential) -> Self {
        let secret = wire.secret.into_iter().map(|(name, bytes)| (name, Zeroizing::new(bytes))).collect();
        Self { kind: wire.kind, public: wire.public, secret }
    }
}

impl Credential {
    /// Which kind of target it is for: `postgres`, `memory`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What may be logged: host, port, user, dbname.
    #[must_use]
    pub fn public(&self) -> &BTreeMap<String, String> {
        &self.public
    }

    /// One public part.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&str> {
        self.public.get(name).map(String::as_str)
    }

    /// The names of the secret parts.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.secret.keys().map(String::as_str)
    }

    /// The bytes of one secret part, exposed.
    #[must_use]
    pub fn expose(&self, name: &str) -> Option<&[u8]> {
        self.secret.get(name).map(|bytes| bytes.as_slice())
    }

    /// One secret part as text.
    ///
    /// # Errors
    /// [`ClientError::BadAnswer`] when there is none of this name, or it is no text.
    pub fn secret(&self, name: &str) -> Result<Secret, ClientError> {
        let bytes = self.expose(name).ok_or(ClientError::BadAnswer("the credential lacks this secret"))?;
        let text = str::from_utf8(bytes).map_err(|_| ClientError::BadAnswer("the secret is not text"))?;
        Ok(Secret::new(text.to_owned()))
    }

    /// The connection URL of a PostgreSQL credential, password included (libpq, "Connection URIs").
    ///
    /// # Errors
    /// [`ClientError::BadAnswer`] when a part is missing.
    pub fn dsn(&self) -> Result<Secret, ClientError> {
        let password = self.secret("password")?;
        self.url(Some(password.expose())).map(Secret)
    }

    /// The connection URL without the password, fit to be shown.
    ///
    /// # Errors
    /// [`ClientError::BadAnswer`] when a part is missing.
    pub fn dsn_without_password(&self) -> Result<String, ClientError> {
        self.url(None).map(|url| url.to_string())
    }

    fn url(&self, password: Option<&str>) -> Result<Zeroizing<String>, ClientError> {
        let missing = || ClientError::BadAnswer("the credential is not one of a database");
        let [user, host, database] = ["user", "host", "dbname"].map(|name| self.part(name));
        let (user, host) = (user.ok_or_else(missing)?, host.ok_or_else(missing)?);
        let port = self.part("port").unwrap_or("5432");
        // Room for the longest form, so that growing leaves no unwiped copy behind.
        let mut url = Zeroizing::new(String::with_capacity(2048));
        url.push_str("postgresql://");
        escape(&mut url, user);
        if let Some(password) = password {
            url.push(':');
            escape(&mut url, password);
        }
        url.push('@');
        push_host(&mut url, host);
        url.push(':');
        url.push_str(port);
        url.push('/');
        escape(&mut url, database.unwrap_or_default());
        for (place, name) in
            ["sslmode", "sslrootcert"].into_iter().filter(|name| self.part(name).is_some()).enumerate()
        {
            url.push(if place == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            escape(&mut url, self.part(name).unwrap_or_default());
        }
        Ok(url)
    }
}

/// A literal IPv6 address stands in brackets; a socket folder is escaped like any other text.
fn push_host(url: &mut String, host: &str) {
    match host.contains(':') {
        true => {
            url.push('[');
            url.push_str(host);
            url.push(']');
        }
        false => escape(url, host),
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986, section 2.3.
fn escape(url: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(public: &[(&str, &str)], password: &str) -> Credential {
        let public = public.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let secret = BTreeMap::from([("password".to_owned(), password.as_bytes().to_vec())]);
        Credential::from(v1::Credential { kind: "postgres".to_owned(), public, secret })
    }

    fn check(public: &[(&str, &str)], password: &str, expect: &str) {
        assert_eq!(credential(public, password).dsn().ok().unwrap().expose(), expect);
    }

    #[test]
    fn a_dsn_is_what_libpq_reads() {
        let base = [("user", "lh1"), ("host", "db1"), ("port", "6432"), ("dbname", "orders")];
        check(&base, "s3cret", "postgresql://lh1:s3cret@db1:6432/orders");
        check(&base, "a:b@c/%", "postgresql://lh1:a%3Ab%40c%2F%25@db1:6432/orders");
        check(&[("user", "u"), ("host", "::1")], "p", "postgresql://u:p@[::1]:5432/");
        check(&[("user", "u"), ("host", "/tmp/pg")], "p", "postgresql://u:p@%2Ftmp%2Fpg:5432/");
        let tls = [("user", "u"), ("host", "h"), ("sslmode", "verify-full"), ("sslrootcert", "/ca.pem")];
        check(&tls, "p", "postgresql://u:p@h:5432/?sslmode=verify-full&sslrootcert=%2Fca.pem");
    }

    #[test]
    fn the_shown_form_has_no_password() {
        let shown = credential(&[("user", "u"), ("host", "h")], "s3cret").dsn_without_password().unwrap();
        assert_eq!(shown, "postgresql://u@h:5432/");
    }

    #[test]
    fn what_is_missing_is_an_error() {
        assert!(credential(&[("user", "u")], "p").dsn().is_err());
        assert!(credential(&[], "p").secret("token").is_err());
    }
}
