//! Bad input of identity, one line a case: what is shown to a real listener, and the exact reason why it is refused.

use std::time::Duration;

use leasehold_law::{caller::SpiffeId, time::Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose as Ext,
    IsCa, Issuer, KeyPair, KeyUsagePurpose as Usage, SanType,
};
use rustls::version::TLS13;
use time::OffsetDateTime;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::world::{BROKER, DOMAIN, Domain, PARTNER, PATIENCE, Shows, World, eventually, raw_tls_as, wall};
use crate::{
    dev::ca::DevCa,
    identity::RefusalReason::{self, Expired, NotASvid, NotYetValid, Other, UnknownIssuer},
};

const ID: &str = "spiffe://home.leasehold.test/agent/a";
const HOUR: Duration = Duration::from_secs(3600);

/// A leaf as SPIRE makes it, before anything is spoilt.
fn good(id: &str) -> CertificateParams {
    let mut leaf = CertificateParams::default();
    leaf.not_before = OffsetDateTime::now_utc() - HOUR;
    leaf.not_after = OffsetDateTime::now_utc() + HOUR;
    leaf.distinguished_name = DistinguishedName::new();
    leaf.subject_alt_names = vec![uri(id)];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::KeyAgreement];
    leaf.extended_key_usages = vec![Ext::ServerAuth, Ext::ClientAuth];
    leaf
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A way to spoil a leaf.
type Spoil = fn(&mut CertificateParams);

const LEAVES: &[(&str, Spoil, RefusalReason)] = &[
    ("expired", |leaf| leaf.not_after = OffsetDateTime::now_utc() - Duration::from_secs(1), Expired),
    ("not yet valid", |leaf| leaf.not_before = OffsetDateTime::now_utc() + HOUR / 2, NotYetValid),
    ("no SAN", |leaf| leaf.subject_alt_names.clear(), NotASvid),
    ("a DNS name only", |leaf| leaf.subject_alt_names = vec![dns("a.example")], NotASvid),
    ("two SPIFFE IDs", |leaf| leaf.subject_alt_names.push(uri("spiffe://home.leasehold.test/b")), NotASvid),
    ("the same SPIFFE ID twice", |leaf| leaf.subject_alt_names.push(uri(ID)), NotASvid),
    (
        "a SPIFFE ID and a web address",
        |leaf| leaf.subject_alt_names.push(uri("https://a.example/")),
        NotASvid,
    ),
    ("a web address only", |leaf| leaf.subject_alt_names = vec![uri("https://a.example/")], NotASvid),
    ("no path", |leaf| leaf.subject_alt_names = vec![uri("spiffe://home.leasehold.test")], NotASvid),
    ("an empty path", |leaf| leaf.subject_alt_names = vec![uri("spiffe://home.leasehold.test/")], NotASvid),
    ("a percent-encoded path", |leaf| leaf.subject_alt_names = vec![uri(&format!("{ID}%2f"))], NotASvid),
    ("dots in the path", |leaf| leaf.subject_alt_names = vec![uri(&format!("{ID}/../b"))], NotASvid),
    ("a trailing slash", |leaf| leaf.subject_alt_names = vec![uri(&format!("{ID}/"))], NotASvid),
    ("a port", |leaf| leaf.subject_alt_names = vec![uri("spiffe://home.leasehold.test:1/a")], NotASvid),
    ("user info", |leaf| leaf.subject_alt_names = vec![uri("spiffe://me@home.leasehold.test/a")], NotASvid),
    ("a query", |leaf| leaf.subject_alt_names = vec![uri(&format!("{ID}?b"))], NotASvid),
    (
        "an upper-case trust domain",
        |leaf| leaf.subject_alt_names = vec![uri("spiffe://HOME.leasehold.test/a")],
        NotASvid,
    ),
    ("an id of 2049 bytes", |leaf| leaf.subject_alt_names = vec![uri(&long(2049))], NotASvid),
    ("a CA as leaf", |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), NotASvid),
    ("no BasicConstraints", |leaf| leaf.is_ca = IsCa::NoCa, NotASvid),
    ("no key usage", |leaf| leaf.key_usages.clear(), NotASvid),
    ("a key usage without digitalSignature", |leaf| leaf.key_usages = vec![Usage::KeyEncipherment], NotASvid),
    ("the key usage keyCertSign", |leaf| leaf.key_usages.push(Usage::KeyCertSign), NotASvid),
    ("the key usage cRLSign", |leaf| leaf.key_usages.push(Usage::CrlSign), NotASvid),
    ("for servers only", |leaf| leaf.extended_key_usages = vec![Ext::ServerAuth], NotASvid),
    (
        "a critical extension that nobody knows",
        |leaf| leaf.custom_extensions.push(unknown(8, true)),
        NotASvid,
    ),
    (
        "another trust domain",
        |leaf| leaf.subject_alt_names = vec![uri("spiffe://other.example/a")],
        UnknownIssuer,
    ),
    (
        "a federated trust domain, signed by our CA",
        |leaf| leaf.subject_alt_names = vec![uri("spiffe://partner.leasehold.test/a")],
        UnknownIssuer,
    ),
];

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A SPIFFE ID of ours, so many bytes long.
fn long(bytes: usize) -> String {
    format!("{ID}/{}", "a".repeat(bytes - ID.len() - 1))
}

fn unknown(bytes: usize, critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0; bytes]);
    extension.set_criticality(critical);
    extension
}

/// A chain with the key of its leaf, as shown.
struct Chain(Vec<Vec<u8>>, Vec<u8>);

fn signed(leaf: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Chain {
    let key = KeyPair::generate().unwrap();
    Chain(vec![leaf.signed_by(&key, issuer).unwrap().der().to_vec()], key.serialize_der())
}

/// So many authorities between the root and the leaf.
fn deep(root: &DevCa, depth: usize) -> Chain {
    let mut below: Option<Issuer<'_, KeyPair>> = None;
    let mut certificates = vec![];
    for _ in 0..depth {
        let mut params = good("spiffe://home.leasehold.test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Usage::KeyCertSign];
        params.extended_key_usages.clear();
        let key = KeyPair::generate().unwrap();
        let above = below.as_ref().unwrap_or_else(|| root.issuer());
        certificates.insert(0, params.signed_by(&key, above).unwrap().der().to_vec());
        below = Some(Issuer::new(params, key));
    }
    let Chain(mut chain, key) = signed(&good(ID), below.as_ref().unwrap_or_else(|| root.issuer()));
    chain.append(&mut certificates);
    Chain(chain, key)
}

/// Whether the listener turned it away, seen from the client.
async fn is_refused(world: &World, Chain(chain, key): &Chain) -> bool {
    let tcp = TcpStream::connect(world.addr).await.unwrap();
    let Ok(mut stream) = raw_tls_as(tcp, Some(Shows::new(chain, key)), &TLS13).await else { return true };
    timeout(PATIENCE, stream.read_u8()).await.unwrap().is_err()
}

/// How a listener answers: with a refusal and its reason, or with none.
async fn answer(world: &World, chain: &Chain) -> Option<RefusalReason> {
    if !is_refused(world, chain).await {
        return None;
    }
    let row = eventually("a refusal", || world.refusals.drain(Timestamp(i64::MAX)).pop()).await;
    Some(row.reason)
}

#[tokio::test]
async fn each_spoilt_leaf_is_refused_with_its_reason() {
    let world = World::new().await;
    let ca = world.domain.inner.ca();
    assert_eq!(answer(&world, &signed(&good(ID), ca.issuer())).await, None, "the good one");
    let mut wrong = vec![];
    for (case, spoil, reason) in LEAVES {
        let mut leaf = good(ID);
        spoil(&mut leaf);
        let found = answer(&world, &signed(&leaf, ca.issuer())).await;
        wrong.extend((found != Some(*reason)).then_some((case, found)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn each_spoilt_chain_is_refused_with_its_reason() {
    let world = World::new().await;
    let (ca, partner) = (world.domain.inner.ca(), Domain::new(PARTNER));
    world.broker.federate(PARTNER, Some(&partner.inner.bundle()));
    until_federated(&world, &partner).await;
    let namesake = DevCa::generate(DOMAIN, wall()).unwrap();
    let mut wrong = vec![];
    for (case, chain, reason) in cases(&ca, &namesake, &partner.inner.ca()) {
        let found = answer(&world, &chain).await;
        wrong.extend((found != reason).then_some((case, found)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

type Case = (&'static str, Chain, Option<RefusalReason>);

fn cases(ca: &DevCa, namesake: &DevCa, partner: &DevCa) -> Vec<Case> {
    let sign = |ca: &DevCa, id: &str| signed(&good(id), ca.issuer());
    let Chain(own, key) = sign(ca, ID);
    let mut forged = own.clone();
    *forged[0].last_mut().unwrap() ^= 1;
    let mut with_root = sign(namesake, ID);
    with_root.0.push(namesake.certificate().to_vec());
    let unknown = Some(UnknownIssuer);
    vec![
        ("the key of another", Chain(own.clone(), sign(ca, ID).1), unknown),
        ("a forged signature", Chain(forged, key.clone()), unknown),
        ("an authority of our name", sign(namesake, ID), unknown),
        ("that authority sent along", with_root, unknown),
        ("a federated authority for an id of ours", sign(partner, ID), unknown),
        ("a federated authority for the broker's id", sign(partner, BROKER), unknown),
        ("what is no certificate", Chain(vec![b"no certificate".to_vec()], key.clone()), Some(NotASvid)),
        ("a certificate cut short", Chain(vec![own[0][..200].to_vec()], key), Some(NotASvid)),
        ("64 authorities deep", deep(ca, 64), Some(NotASvid)),
        ("a certificate of 100 KiB", huge(ca, 100 * 1024), Some(Other)),
        ("two authorities deep", deep(ca, 2), None),
        ("a certificate of 16 KiB", huge(ca, 16 * 1024), None),
        ("an id of 2048 bytes", sign(ca, &long(2048)), None),
    ]
}

fn huge(ca: &DevCa, bytes: usize) -> Chain {
    let mut leaf = good(ID);
    leaf.custom_extensions.push(unknown(bytes, false));
    signed(&leaf, ca.issuer())
}

async fn until_federated(world: &World, partner: &Domain) {
    let theirs = good("spiffe://partner.leasehold.test/a");
    let chain = signed(&theirs, partner.inner.ca().issuer());
    let arrived = async { while is_refused(world, &chain).await {} };
    timeout(PATIENCE, arrived).await.expect("the bundle never arrived");
    world.refusals.drain(Timestamp(i64::MAX));
}

/// Each text, and whether it is a SPIFFE ID of a workload to the law and to the SPIFFE library.
const IDS: &[(&str, bool, bool)] = &[
    ("spiffe://prod.example/a", true, true),
    ("spiffe://prod.example/A/b-C_d.e", true, true),
    ("spiffe://prod_1.example/a", true, true),
    ("spiffe://1.2.3.4/a", true, true),
    ("spiffe://prod.example", false, true),
    ("spiffe://prod.example/", false, false),
    ("spiffe://prod.example//", false, false),
    ("spiffe://prod.example/a/", false, false),
    ("spiffe://prod.example/a//b", false, false),
    ("spiffe://prod.example/.", false, false),
    ("spiffe://prod.example/a/../b", false, false),
    ("spiffe://prod.example/a/..", false, false),
    ("spiffe://prod.example/...", true, true),
    ("spiffe://./a", false, true),
    ("spiffe://../a", false, true),
    ("spiffe://.example/a", false, true),
    ("spiffe://prod.example./a", false, true),
    ("spiffe://prod..example/a", false, true),
    ("SPIFFE://prod.example/a", false, true),
    ("spiffe://PROD.example/a", false, true),
    ("spiffe://prod.example/%61", false, false),
    ("spiffe://prod.example/a%2Fb", false, false),
    ("spiffe://prod.example/a b", false, false),
    ("spiffe://prod.example/ä", false, false),
    ("spiffe://prød.example/a", false, false),
    ("spiffe://prod.example/a\n", false, false),
    ("spiffe://prod.example/a\0", false, false),
    (" spiffe://prod.example/a", false, false),
    ("spiffe://prod.example:443/a", false, false),
    ("spiffe://me@prod.example/a", false, false),
    ("spiffe://prod.example/a?b=c", false, false),
    ("spiffe://prod.example/a#b", false, false),
    ("spiffe://[::1]/a", false, false),
    ("spiffe:///a", false, false),
    ("spiffe:/prod.example/a", false, false),
    ("https://prod.example/a", false, false),
    ("", false, false),
];

/// What the certificate's parser lets through becomes a caller only if the law takes it too, so the law may be stricter
/// and never laxer.
#[test]
fn the_law_and_the_library_agree_on_what_a_spiffe_id_is() {
    let domain = |bytes: usize| format!("spiffe://{}/a", "a".repeat(bytes));
    let bounds = [
        (long(2048), true, true),
        (long(2049), false, true),
        (domain(255), true, true),
        (domain(256), false, false),
    ];
    let all = IDS.iter().map(|(text, law, library)| ((*text).to_owned(), *law, *library)).chain(bounds);
    for (text, law, library) in all {
        assert_eq!(text.parse::<SpiffeId>().is_ok(), law, "the law on `{text}`");
        assert_eq!(::spiffe::SpiffeId::new(&text).is_ok(), library, "the library on `{text}`");
        assert!(library || !law, "the law is laxer on `{text}`");
    }
}
