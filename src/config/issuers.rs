//! `[identity.ci]` and `[identity.kubernetes]`: who vouches for jobs, and who for service accounts.

use std::path::PathBuf;

use leasehold_law::time::Span;

use super::identity::life;
use super::names::Names;
use super::problem::Report;
use super::table::{Table, Value};
use crate::identity::ci::{CiIssuer, Platform};
use crate::identity::issuer::{IssuerUrl, KeySource};
use crate::identity::kube::Cluster;

/// The audience of jobs, and of workloads, where none is given.
const CI_AUDIENCE: &str = "leasehold-ci";
const KUBE_AUDIENCE: &str = "leasehold";
/// How long a token may live where nothing is said: what GitLab and the kubelet make at most by default.
const LIFE: Span = Span::from_mins(60);
/// The longest audience, in bytes.
const MAX_AUDIENCE: usize = 256;

const PLATFORMS: [(&str, Platform); 3] =
    [("github", Platform::Github), ("gitlab", Platform::Gitlab), ("generic", Platform::Generic)];

/// Everybody outside the trust domain whose word counts.
pub(super) struct Issuers {
    pub(super) ci: Names<CiIssuer>,
    pub(super) clusters: Names<Cluster>,
}

impl Issuers {
    pub(super) fn none() -> Self {
        Self {
            ci: Names::collect(&[], ("ci", "issuer"), Table::named, |_, _| None),
            clusters: Names::collect(&[], ("kubernetes", "cluster"), Table::named, |_, _| None),
        }
    }

    /// From `[identity]`. `workloads` is the audience of JWT-SVIDs, where they are accepted.
    pub(super) fn read(identity: &Table<'_>, workloads: Option<&str>) -> Self {
        let parts = std::slice::from_ref(identity);
        let ci = Names::collect(parts, ("ci", "issuer"), Table::named, ci);
        let clusters = Names::collect(parts, ("kubernetes", "cluster"), Table::named, cluster);
        let issuers = Self { ci, clusters };
        issuers.check(workloads, identity.context().report);
        issuers
    }

    /// No token is ever of two kinds: each issuer is named once, and each use has an audience of its own (RULES R-20).
    fn check(&self, workloads: Option<&str>, report: &Report) {
        let ci = self.ci.values.iter().map(|(name, issuer)| (name, &issuer.url, self.ci.place(name)));
        let clusters = self.clusters.values.iter();
        let clusters = clusters.map(|(name, cluster)| (name, &cluster.url, self.clusters.place(name)));
        let all: Vec<_> = ci.chain(clusters).collect();
        for (index, (name, url, place)) in all.iter().enumerate() {
            let first = all.iter().take(index).find(|(_, other, _)| other == url);
            if let (Some((first, ..)), Some(place)) = (first, place) {
                report.problem(place, format!("`{name}` and `{first}` are the same issuer, `{url}`"));
            }
        }
        let clusters = self.clusters.values.values().map(|cluster| cluster.audience.as_str());
        let workloads: Vec<_> = clusters.chain(workloads).collect();
        for (name, issuer) in &self.ci.values {
            if let Some(place) = self.ci.place(name).filter(|_| workloads.contains(&issuer.audience.as_str()))
            {
                let what = format!(
                    "`{}` is the audience of workloads; jobs need another, such as `{CI_AUDIENCE}`, or a token for \
                     one use would do for the other",
                    issuer.audience
                );
                report.problem(place, what);
            }
        }
    }
}

fn ci(name: &str, value: &Value<'_>) -> Option<CiIssuer> {
    value.read(|table| {
        let platform = table.need("kind").and_then(|value| value.word(&PLATFORMS));
        let url = match platform {
            Some(Platform::Github) => issuer_or(table, GITHUB),
            Some(Platform::Gitlab) => issuer_or(table, GITLAB),
            Some(Platform::Generic) => table.need_parsed("issuer"),
            None => table.get("issuer").and_then(|value| value.parsed()),
        };
        let audience = audience(table, CI_AUDIENCE);
        let keys = KeySource::Discovery { ca_file: path(table, "ca_file") };
        let max_life = max_life(table);
        Some(CiIssuer { name: name.to_owned(), platform: platform?, url: url?, keys, audience, max_life })
    })
}

/// Who signs where nothing else is said.
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const GITLAB: &str = "https://gitlab.com";

fn issuer_or(table: &Table<'_>, usual: &str) -> Option<IssuerUrl> {
    table.get("issuer").map_or_else(|| usual.parse().ok(), |value| value.parsed())
}

fn cluster(name: &str, value: &Value<'_>) -> Option<Cluster> {
    value.read(|table| {
        let url: Option<IssuerUrl> = table.need_parsed("issuer");
        let audience = audience(table, KUBE_AUDIENCE);
        let max_life = max_life(table);
        let (file, ca_file) = (path(table, "jwks_file"), path(table, "ca_file"));
        if file.is_some() && ca_file.is_some() {
            let what =
                "`ca_file` is for asking the issuer, and `jwks_file` for not asking it; write one of them";
            value.problem(what);
        }
        let keys = file.map_or(KeySource::Discovery { ca_file }, KeySource::File);
        Some(Cluster { name: name.to_owned(), url: url?, keys, audience, max_life })
    })
}

fn audience(table: &Table<'_>, default: &str) -> String {
    let read = |value: Value<'_>| {
        let text = value.filled()?;
        if text.len() > MAX_AUDIENCE || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            value.problem(format!("an audience is up to {MAX_AUDIENCE} visible letters without spaces"));
        }
        Some(text.to_owned())
    };
    table.get("audience").and_then(read).unwrap_or_else(|| default.to_owned())
}

fn max_life(table: &Table<'_>) -> Span {
    table.get("max_life").and_then(|value| life(&value)).unwrap_or(LIFE)
}

fn path(table: &Table<'_>, key: &'static str) -> Option<PathBuf> {
    let value = table.get(key)?;
    value.filled().map(|path| table.context().source.resolve(path))
}
