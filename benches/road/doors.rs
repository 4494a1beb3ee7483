//! Who is asking: handshakes beside bare mutual TLS, and calls that are proven by tokens beside bare verifications.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use leasehold::clock::TimeSource as _;
use leasehold::dev::ca::Shape;
use leasehold_client::bearer::connect_web;
use leasehold_jose::ProofKey;
use leasehold_proto::v1;
use leasehold_proto::v1::identity_service_client::IdentityServiceClient;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::Request;

use crate::raw::Gullible;
use crate::table::Table;
use crate::web::write_certificate;
use crate::world::{PATIENCE, Setup, World};

const RUN: Duration = Duration::from_secs(5);
const CALLERS: usize = 8;
const WHOAMI: &str = "/leasehold.v1.IdentityService/WhoAmI";
const AGENT: &str = "spiffe://suite.leasehold.test/agent/triage";

pub(crate) async fn run(table: &mut Table) {
    let setup = Setup::default()
        .replace(
            "agents = \"127.0.0.1:0\"",
            "agents = \"127.0.0.1:0\"\nbearer = \"127.0.0.1:0\"\ncertificate = \"web.pem\"\nkey = \"web.key\"",
        )
        .replace("workload_api =", "jwt = {}\nworkload_api =");
    let mut world = World::prepare(&setup).await;
    write_certificate(world.dir.path());
    world.start(&setup).await.unwrap();
    handshakes(&world, table).await;
    tokens(&world, table).await;
    world.stop().await;
}

/// Both servers get the same client, with a certificate and without tickets: every handshake is a whole one, and ends
/// when the server has spoken, which it does once it took the certificate.
async fn handshakes(world: &World, table: &mut Table) {
    let client = TlsConnector::from(Arc::new(client_config(world)));
    let bare = bare_server(world).await;
    let (mut ours, mut theirs) = (0.0, 0.0);
    // In turns, since what else the machine does changes by the second.
    for _ in 0..3 {
        theirs += handshakes_a_second(&client, bare).await / 3.0;
        ours += handshakes_a_second(&client, world.running().agents).await / 3.0;
    }
    table.row(
        "handshakes, mutual TLS 1.3, SVID verified, 8 callers",
        format!("{ours:.0}/s beside {theirs:.0}/s bare: {:.0} %", 100.0 * ours / theirs),
        "85 % of bare mutual TLS",
        ours >= 0.85 * theirs,
    );
}

async fn handshakes_a_second(client: &TlsConnector, address: SocketAddr) -> f64 {
    let until = Instant::now() + RUN;
    let one = |client: TlsConnector| async move {
        let mut count = 0_u32;
        while Instant::now() < until {
            let tcp = TcpStream::connect(address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let name = ServerName::try_from("leasehold.invalid").unwrap();
            let mut stream = client.connect(name, tcp).await.unwrap();
            stream.read_u8().await.unwrap();
            count += 1;
        }
        count
    };
    let began = Instant::now();
    let all: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(one(client.clone()))).collect();
    let mut count = 0;
    for caller in all {
        count += caller.await.unwrap();
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

fn chain_and_key(world: &World, path: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let life = Duration::from_secs(3600);
    let svid = world.domain.ca().sign(path, Shape::Good, world.time.wall(), life).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.expose_key().to_vec()));
    (vec![CertificateDer::from(svid.certificate().to_vec())], key)
}

fn client_config(world: &World) -> ClientConfig {
    let (chain, key) = chain_and_key(world, "/agent/triage");
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// A server that does nothing but mutual TLS under the same authority: it says a byte to whoever passed.
async fn bare_server(world: &World) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(world.domain.ca().certificate().to_vec())).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (chain, key) = chain_and_key(world, "/leasehold");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (tls, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                tcp.set_nodelay(true).unwrap();
                if let Ok(mut stream) = tls.accept(tcp).await {
                    let _ = stream.write_u8(0).await;
                    let _ = stream.flush().await;
                }
            });
        }
    });
    address
}

/// Tokens and proofs are made before the clock runs: clients sign, and the broker is what is measured. A call at first
/// use costs two verifications and a commit, one with a token that is known costs one.
async fn tokens(world: &World, table: &mut Table) {
    let limit = verifications_a_second();
    let (first, again) = (calls_a_second(world, true).await, calls_a_second(world, false).await);
    for (what, rate, each) in [("first use of a token", first, 2.0), ("a token that is bound", again, 1.0)] {
        table.row(
            format!("calls on the door for tokens, {what}, 8 callers"),
            format!(
                "{rate:.0}/s beside {:.0}/s bare verifications: {:.0} %",
                limit / each,
                100.0 * rate * each / limit
            ),
            "70 % of bare ES256 verifications",
            rate * each >= 0.7 * limit,
        );
    }
}

/// On every core, as a server would.
fn verifications_a_second() -> f64 {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap();
    let message = vec![7_u8; 400];
    let signature = key.sign(&random, &message).unwrap();
    let public = key.public_key().as_ref().to_vec();
    let cores = std::thread::available_parallelism().unwrap().get();
    let (done, began) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public);
                while began.elapsed() < Duration::from_secs(2) {
                    (0..50).for_each(|_| verifier.verify(&message, signature.as_ref()).unwrap());
                    done.fetch_add(50, Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

async fn calls_a_second(world: &World, fresh: bool) -> f64 {
    const EACH: usize = 1500;
    let origin = format!("https://{}", world.running().bearer.unwrap());
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let channel =
            connect_web(&origin, Some(Path::new(&world.path("web-ca.pem"))), PATIENCE).await.unwrap();
        let key = ProofKey::generate().unwrap();
        let token = |n: usize| token(world, &format!("{fresh}-{caller}-{n}"));
        let one = token(0);
        let calls: Vec<_> = (0..EACH)
            .map(|n| {
                let token = if fresh { token(n) } else { one.clone() };
                let proof =
                    key.prove("POST", &format!("{origin}{WHOAMI}"), &token, world.time.wall()).unwrap();
                (format!("DPoP {token}"), proof)
            })
            .collect();
        callers.push((IdentityServiceClient::new(channel), calls));
    }
    let began = Instant::now();
    let ask = |(mut client, calls): (IdentityServiceClient<_>, Vec<(String, String)>)| async move {
        for (token, proof) in calls {
            let mut request = Request::new(v1::WhoAmIRequest {});
            request.metadata_mut().insert("authorization", token.parse().unwrap());
            request.metadata_mut().insert("dpop", proof.parse().unwrap());
            client.who_am_i(request).await.unwrap();
        }
    };
    let all: Vec<_> = callers.into_iter().map(|caller| tokio::spawn(ask(caller))).collect();
    for caller in all {
        caller.await.unwrap();
    }
    (CALLERS * EACH) as f64 / began.elapsed().as_secs_f64()
}

fn token(world: &World, name: &str) -> String {
    let now = world.time.wall().0 / 1000;
    let claims = json!({ "sub": AGENT, "aud": ["leasehold"], "iat": now, "exp": now + 600, "n": name });
    world.domain.sign_token(&claims).unwrap()
}
