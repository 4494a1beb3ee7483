//! The front door under honest and dishonest callers, over real sockets.

mod corpus;
mod world;

use std::{net::SocketAddr, time::Duration};

use leasehold_client::channel::{ChannelError, connect_spiffe, connect_unix};
use leasehold_law::caller::{CallerId, ProvenBy};
use leasehold_law::time::Timestamp;
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use world::{
    BROKER, DOMAIN, Domain, PARTNER, PATIENCE, TTL, World, check, eventually, raw_tls, raw_tls_over,
    settings, tcp_from, wall,
};

use super::{
    Caller, Door, Each, Presented, RefusalReason, Rejection,
    listener::{Limits, ListenError, bind_tcp},
    spiffe::{SpiffeError, SpiffeIdentity},
};
use crate::dev::ca::{DevCa, DevSvid, Shape};

fn proven(world: &World) -> Caller {
    match world.last_seen() {
        Presented::Proven(caller, _) => caller,
        other @ (Presented::NotPresented | Presented::Open(_) | Presented::Rejected(_)) => {
            panic!("not proven: {other:?}")
        }
    }
}

#[tokio::test]
async fn a_good_caller_is_its_spiffe_id() {
    let world = World::new().await;
    let channel = world.connect(&world.agent("triage").await).await;
    check(&channel).await.unwrap();
    let caller = proven(&world);
    assert_eq!(caller.id().to_string(), "spiffe://home.leasehold.test/agent/triage");
    assert_eq!((caller.proof(), caller.door()), (ProvenBy::X509Svid, Door::Agents));
    assert!(caller.not_after().unwrap() > wall());
    assert!(caller.peer().unwrap().ip().is_loopback());
    assert_eq!(caller.login_uid(), None);
}

#[tokio::test]
async fn a_local_user_is_its_uid() {
    let world = World::new().await;
    check(&connect_unix(&world.socket).await.unwrap()).await.unwrap();
    let caller = proven(&world);
    assert_eq!(caller.id(), &CallerId::LocalUser(rustix::process::geteuid().as_raw()));
    assert_eq!((caller.proof(), caller.not_after()), (ProvenBy::PeerCredentials, None));
}

#[test]
fn a_request_from_nowhere_presents_nothing() {
    let presented = Presented::of(&http::Extensions::new(), wall());
    assert!(matches!(presented, Presented::NotPresented), "{presented:?}");
}

/// Refused, seen from the client: the handshake fails, or the first read does.
async fn is_refused(addr: SocketAddr, own: Option<&DevSvid>) -> bool {
    match raw_tls(addr, own, &TLS13).await {
        Ok(mut stream) => timeout(PATIENCE, stream.read_u8()).await.unwrap().is_err(),
        Err(_) => true,
    }
}

#[tokio::test]
async fn each_bad_certificate_is_refused_with_its_reason() {
    use RefusalReason::{Expired, NoCertificate, NotASvid, NotYetValid, UnknownIssuer};
    let world = World::new().await;
    let home = world.domain.inner.ca();
    let own = |shape| home.sign("/agent/a", shape, wall(), TTL).unwrap();
    assert!(!is_refused(world.addr, Some(&own(Shape::Good))).await, "the good one passes");
    for (shape, reason) in [
        (Shape::Expired, Expired),
        (Shape::NotYetValid, NotYetValid),
        (Shape::TwoUris, NotASvid),
        (Shape::SpiffeAndHttps, NotASvid),
        (Shape::NoUri, NotASvid),
        (Shape::NoPath, NotASvid),
        (Shape::NoBasicConstraints, NotASvid),
        (Shape::NoKeyUsage, NotASvid),
    ] {
        assert!(is_refused(world.addr, Some(&own(shape))).await, "{shape:?}");
        world.expect_refusal(reason, &format!("{shape:?}")).await;
    }
    let good = |ca: &DevCa| ca.sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    let stranger = good(&DevCa::generate("stranger.example", wall()).unwrap());
    let namesake = good(&DevCa::generate(DOMAIN, wall()).unwrap());
    let cases = [
        ("another trust domain", Some(stranger), UnknownIssuer),
        ("another CA of the same trust domain", Some(namesake), UnknownIssuer),
        ("no certificate", None, NoCertificate),
    ];
    for (case, svid, reason) in cases {
        assert!(is_refused(world.addr, svid.as_ref()).await, "{case}");
        world.expect_refusal(reason, case).await;
    }
}

#[tokio::test]
async fn less_than_tls_1_3_is_dropped() {
    let world = World::new().await;
    let svid = world.domain.inner.ca().sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    let mut stream = raw_tls(world.addr, Some(&svid), &TLS12).await.unwrap();
    assert!(stream.read_u8().await.is_err(), "dropped after the handshake");
    world.expect_refusal(RefusalReason::OldTls, "TLS 1.2").await;
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let world = World::new().await;
    let mut tcp = TcpStream::connect(world.addr).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    world.expect_refusal(RefusalReason::Other, "plain HTTP").await;
}

#[tokio::test]
async fn a_half_open_client_is_cut_at_the_handshake_deadline() {
    let limits = Limits { handshake_time: Duration::from_millis(50), ..Limits::default() };
    let world = World::with(limits).await;
    let mut silent = TcpStream::connect(world.addr).await.unwrap();
    let end = timeout(PATIENCE, silent.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    world.expect_refusal(RefusalReason::Timeout, "silent client").await;
}

#[tokio::test]
async fn silent_clients_do_not_keep_honest_ones_out_for_long() {
    let limits = Limits { handshakes: 2, handshake_time: Duration::from_millis(50), ..Limits::default() };
    let world = World::with(limits).await;
    let agent = world.agent("a").await;
    let mut silent = vec![];
    for _ in 0..8 {
        silent.push(TcpStream::connect(world.addr).await.unwrap());
    }
    check(&world.connect(&agent).await).await.unwrap();
}

/// Whoever opens many connections and says nothing waits among its own.
#[tokio::test]
async fn one_address_cannot_take_every_handshake() {
    let forever = Duration::from_secs(3600);
    let limits = Limits { handshakes: 4, handshakes_each: 2, handshake_time: forever, ..Limits::default() };
    let world = World::with(limits).await;
    let mut silent = vec![];
    for _ in 0..8 {
        silent.push(tcp_from("127.0.0.2", world.addr).await);
    }
    let mut refused = 0;
    eventually("what is beyond its share is closed", || {
        refused += world.refusals.drain(Timestamp(i64::MAX)).iter().map(|row| row.count).sum::<u64>();
        (refused == 6).then_some(())
    })
    .await;
    for mut closed in silent.split_off(2) {
        let end = timeout(PATIENCE, closed.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    let svid = world.domain.inner.ca().sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    let honest = tcp_from("127.0.0.3", world.addr).await;
    let mut honest = timeout(PATIENCE, raw_tls_over(honest, Some(&svid), &TLS13)).await.unwrap().unwrap();
    honest.read_u8().await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_freed() {
    let world = World::with(Limits { connections: 1, ..Limits::default() }).await;
    let svid = world.domain.inner.ca().sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    let mut first = raw_tls(world.addr, Some(&svid), &TLS13).await.unwrap();
    first.read_u8().await.unwrap();
    assert!(is_refused(world.addr, Some(&svid)).await, "the second finds no room");
    world.expect_refusal(RefusalReason::TooManyConnections, "second connection").await;
    drop(first);
    for _ in 0..1000 {
        if !is_refused(world.addr, Some(&svid)).await {
            return;
        }
    }
    panic!("the slot of a closed connection was never free again");
}

#[tokio::test]
async fn one_caller_has_its_share_of_connections_and_no_more() {
    let each = Each { connections: 2, ..Each::default() };
    let world = World::with(Limits { each, ..Limits::default() }).await;
    let ca = world.domain.inner.ca();
    let svid = ca.sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    let mut held = vec![];
    for _ in 0..2 {
        let mut stream = raw_tls(world.addr, Some(&svid), &TLS13).await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    assert!(is_refused(world.addr, Some(&svid)).await, "the third finds no room");
    world.expect_refusal(RefusalReason::TooManyConnections, "third connection").await;
    let other = ca.sign("/agent/b", Shape::Good, wall(), TTL).unwrap();
    assert!(!is_refused(world.addr, Some(&other)).await, "another caller does");
}

/// An SVID proves who it is, not that anybody wants it here.
#[tokio::test]
async fn visitors_are_told_why_and_take_nobody_s_place() {
    let limits =
        Limits { connections: 1, visitors: 2, visitor_life: Duration::from_millis(300), ..Limits::default() };
    let world = World::with(limits).await;
    let visitor = world.domain.inner.serve("visitor", "/visitor").await.unwrap();
    check(&world.connect(&visitor).await).await.unwrap();
    let ca = world.domain.inner.ca();
    let svid = ca.sign("/visitor", Shape::Good, wall(), TTL).unwrap();
    let mut stream = raw_tls(world.addr, Some(&svid), &TLS13).await.unwrap();
    stream.read_u8().await.unwrap();
    check(&world.connect(&world.agent("a").await).await).await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut vec![])).await.expect("a visitor outstayed its time").ok();
}

/// A door for tokens asks nobody for a certificate: whoever can connect could take all its places for an hour.
#[tokio::test]
async fn a_stranger_holds_no_connection_of_a_door_for_tokens() {
    let limits = Limits { connections: 1, stranger_life: Duration::from_millis(300), ..Limits::default() };
    let world = World::with(limits).await;
    let mut held = raw_tls(world.open, None, &TLS13).await.unwrap();
    timeout(PATIENCE, held.read_to_end(&mut vec![])).await.expect("a stranger outstayed its time").ok();
    for _ in 0..1000 {
        if !is_refused(world.open, None).await {
            return;
        }
    }
    panic!("the place of a stranger was never free again");
}

#[tokio::test]
async fn rotation_drops_no_request() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let held = world.connect(&agent).await;
    check(&held).await.unwrap();
    let first = server_leaf(&world).await;
    for round in 0..10 {
        world.broker.rotate().unwrap();
        agent.rotate().unwrap();
        check(&held).await.unwrap();
        let fresh = world.connect(&agent).await;
        check(&fresh).await.unwrap_or_else(|status| panic!("round {round}: {status}"));
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server_leaf(&world).await == first {
        assert!(tokio::time::Instant::now() < deadline, "the rotated SVID was never shown");
    }
}

async fn server_leaf(world: &World) -> Vec<u8> {
    let stream = raw_tls(world.addr, None, &TLS13).await.unwrap();
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_withdrawn_broker_accepts_nobody_until_it_is_restored() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let held = world.connect(&agent).await;
    check(&held).await.unwrap();
    world.broker.withdraw();
    eventually("withdrawal seen", || (!world.identity.is_ready()).then_some(())).await;
    let svid = world.domain.inner.ca().sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    assert!(is_refused(world.addr, Some(&svid)).await);
    check(&held).await.unwrap();
    world.broker.restore().unwrap();
    eventually("restored", || world.identity.is_ready().then_some(())).await;
    check(&world.connect(&agent).await).await.unwrap();
}

#[tokio::test]
async fn a_withdrawn_agent_gets_no_channel() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    agent.withdraw();
    let addr = world.addr.to_string();
    let error = connect_spiffe(&agent.endpoint(), &addr, None, PATIENCE).await.unwrap_err();
    assert_eq!(error, ChannelError::NoIdentityIssued { endpoint: agent.endpoint() });
}

#[tokio::test]
async fn an_svid_past_its_end_is_refused_on_an_open_connection() {
    let world = World::new().await;
    let channel = world.connect(&world.agent("a").await).await;
    check(&channel).await.unwrap();
    let not_after = proven(&world).not_after().unwrap();
    world.skew(TTL + Duration::from_secs(1));
    let status = check(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    let seen = world.last_seen();
    let expired = Rejection::SvidExpired { not_after };
    assert!(matches!(seen, Presented::Rejected(why) if why == expired), "{seen:?}");
}

#[tokio::test]
async fn a_connection_ends_at_its_deadline_though_a_stream_is_held() {
    let limits = Limits { connection_life: Duration::from_millis(300), ..Limits::default() };
    let world = World::with(limits).await;
    for channel in [world.connect(&world.agent("a").await).await, connect_unix(&world.socket).await.unwrap()]
    {
        let watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap();
        let mut stream = watch.into_inner();
        stream.message().await.unwrap().unwrap();
        let end = timeout(PATIENCE, stream.message()).await.expect("the stream was never cut");
        assert!(end.is_err(), "{end:?}");
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_svid() {
    let world = World::new().await;
    let ttl = Duration::from_millis(1500);
    let svid = world.domain.inner.ca().sign("/agent/a", Shape::Good, wall(), ttl).unwrap();
    let mut stream = raw_tls(world.addr, Some(&svid), &TLS13).await.unwrap();
    stream.read_u8().await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut vec![])).await.expect("it outlived its SVID").ok();
}

#[tokio::test]
async fn a_federated_peer_is_its_own_id_and_nobody_of_ours() {
    let world = World::new().await;
    let partner = Domain::new("partner.leasehold.test");
    let peer = partner.inner.serve("peer", "/agent/p").await.unwrap();
    peer.federate(DOMAIN, Some(&world.domain.inner.bundle()));
    let forged = partner.inner.ca().sign_id(BROKER, Shape::Good, wall(), TTL).unwrap();
    let foreign = partner.inner.ca().sign("/agent/p", Shape::Good, wall(), TTL).unwrap();
    assert!(is_refused(world.addr, Some(&foreign)).await, "not federated yet");
    world.expect_refusal(RefusalReason::UnknownIssuer, "not federated").await;

    world.broker.federate("partner.leasehold.test", Some(&partner.inner.bundle()));
    until_refused(&world, &foreign, false).await;
    check(&world.connect(&peer).await).await.unwrap();
    assert_eq!(proven(&world).id().to_string(), "spiffe://partner.leasehold.test/agent/p");
    assert!(is_refused(world.addr, Some(&forged)).await, "a partner may not sign our ids");

    world.broker.federate("partner.leasehold.test", None);
    until_refused(&world, &foreign, true).await;
}

/// A Workload API may give more bundles than a broker was told to take.
#[tokio::test]
async fn a_bundle_that_nobody_asked_for_counts_for_nothing() {
    let world = World::new().await;
    let other = Domain::new("other.leasehold.test");
    let partner = Domain::new(PARTNER);
    for domain in [&other, &partner] {
        world.broker.federate(domain.inner.ca().trust_domain(), Some(&domain.inner.bundle()));
    }
    let svid = |domain: &Domain| domain.inner.ca().sign("/agent/p", Shape::Good, wall(), TTL).unwrap();
    until_refused(&world, &svid(&partner), false).await;
    world.refusals.drain(Timestamp(i64::MAX));
    assert!(is_refused(world.addr, Some(&svid(&other))).await);
    world.expect_refusal(RefusalReason::UnknownIssuer, "a bundle, and no federation").await;
}

#[tokio::test]
async fn a_withdrawn_bundle_ends_an_open_connection() {
    let world = World::new().await;
    let partner = Domain::new(PARTNER);
    world.broker.federate(PARTNER, Some(&partner.inner.bundle()));
    let svid = partner.inner.ca().sign("/agent/p", Shape::Good, wall(), TTL).unwrap();
    until_refused(&world, &svid, false).await;
    let mut theirs = raw_tls(world.addr, Some(&svid), &TLS13).await.unwrap();
    theirs.read_u8().await.unwrap();
    let agent = world.agent("a").await;
    let ours = world.connect(&agent).await;
    check(&ours).await.unwrap();
    world.broker.federate(PARTNER, None);
    timeout(PATIENCE, theirs.read_to_end(&mut vec![])).await.expect("it outlived its bundle").ok();
    check(&ours).await.unwrap();
}

/// Its connection may end a moment later: what comes over it meanwhile counts no more, and is told why.
#[tokio::test]
async fn a_request_whose_bundle_was_withdrawn_is_rejected_and_told_why() {
    let world = World::new().await;
    let partner = Domain::new(PARTNER);
    let peer = partner.inner.serve("peer", "/agent/p").await.unwrap();
    peer.federate(DOMAIN, Some(&world.domain.inner.bundle()));
    world.broker.federate(PARTNER, Some(&partner.inner.bundle()));
    let svid = partner.inner.ca().sign("/agent/p", Shape::Good, wall(), TTL).unwrap();
    until_refused(&world, &svid, false).await;
    check(&world.connect(&peer).await).await.unwrap();
    assert!(matches!(world.one_more(), Presented::Proven(..)), "{:?}", world.one_more());

    world.broker.federate(PARTNER, None);
    let rejected = eventually("a request is rejected", || match world.one_more() {
        Presented::Rejected(why) => Some(why),
        Presented::Proven(..) | Presented::Open(_) | Presented::NotPresented => None,
    });
    let rejected = rejected.await;
    assert_eq!(rejected, Rejection::BundleWithdrawn);
    assert!(rejected.to_string().ends_with("any more: its federation has ended"), "{rejected}");
    assert!(rejected.next().contains("SPIRE server"), "{}", rejected.next());
}

/// After a roll, and at once after a compromise: whoever came in under the old authority proves itself anew.
#[tokio::test]
async fn a_withdrawn_authority_ends_the_connections_made_under_it() {
    let world = World::new().await;
    let old = world.domain.inner.ca();
    let svid = |ca: &DevCa| ca.sign("/agent/a", Shape::Good, wall(), TTL).unwrap();
    let mut first = raw_tls(world.addr, Some(&svid(&old)), &TLS13).await.unwrap();
    first.read_u8().await.unwrap();
    world.domain.inner.publish_next_keys().unwrap();
    let next = world.domain.inner.published().pop().unwrap();
    until_refused(&world, &svid(&next), false).await;
    world.domain.inner.activate_next_keys().unwrap();
    assert!(!is_refused(world.addr, Some(&svid(&old))).await, "the old one counts until it is withdrawn");
    world.domain.inner.withdraw_old_keys().unwrap();
    timeout(PATIENCE, first.read_to_end(&mut vec![])).await.expect("it outlived its authority").ok();
    until_refused(&world, &svid(&old), true).await;
    assert!(!is_refused(world.addr, Some(&svid(&next))).await);
}

/// One byte now and then keeps no handshake open.
#[tokio::test]
async fn a_client_that_drips_is_cut_at_the_handshake_deadline() {
    let limits = Limits { handshake_time: Duration::from_millis(100), ..Limits::default() };
    let world = World::with(limits).await;
    let mut slow = TcpStream::connect(world.addr).await.unwrap();
    let mut drip = tokio::time::interval(Duration::from_millis(5));
    // The head of a record of 16 KiB, and then zeroes.
    let mut bytes = [0x16, 3, 1, 0x40, 0].into_iter().chain(std::iter::repeat(0));
    let cut = async {
        loop {
            drip.tick().await;
            if slow.write_u8(bytes.next().unwrap()).await.is_err() {
                break;
            }
        }
    };
    timeout(PATIENCE, cut).await.expect("it dripped on");
    world.expect_refusal(RefusalReason::Timeout, "a client that drips").await;
}

/// Handshakes until a change of bundles has arrived.
async fn until_refused(world: &World, svid: &DevSvid, refused: bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while is_refused(world.addr, Some(svid)).await != refused {
        assert!(tokio::time::Instant::now() < deadline, "the change of bundles never arrived");
    }
}

#[tokio::test]
async fn clients_are_told_why_there_is_no_channel() {
    let world = World::new().await;
    let agent = world.agent("a").await;
    let addr = world.addr.to_string();
    let other = "spiffe://home.leasehold.test/other";
    let wrong = connect_spiffe(&agent.endpoint(), &addr, Some(other.try_into().unwrap()), PATIENCE).await;
    let expected = ChannelError::WrongServerId { expected: other.into(), found: BROKER.into() };
    assert_eq!(wrong.unwrap_err(), expected);

    let stranger = Domain::new("stranger.leasehold.test");
    let peer = stranger.inner.serve("peer", "/agent/p").await.unwrap();
    peer.federate(DOMAIN, Some(&world.domain.inner.bundle()));
    let server = Some(BROKER.try_into().unwrap());
    let refused = connect_spiffe(&peer.endpoint(), &addr, server, PATIENCE).await.unwrap_err();
    let ChannelError::Refused { alert, .. } = &refused else { panic!("{refused:?}") };
    assert!(alert.contains("alert"), "{alert}");

    let closed = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr().unwrap().to_string();
    let nobody = connect_spiffe(&agent.endpoint(), &closed, None, PATIENCE).await.unwrap_err();
    assert!(matches!(nobody, ChannelError::Unreachable { .. }), "{nobody:?}");

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let quiet = silent.local_addr().unwrap().to_string();
    let late = connect_spiffe(&agent.endpoint(), &quiet, None, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(late, ChannelError::Timeout { .. }), "{late:?}");

    let gone = connect_spiffe("unix:/nowhere/agent.sock", &addr, None, PATIENCE).await.unwrap_err();
    assert!(matches!(gone, ChannelError::NoSocket { .. }), "{gone:?}");
    let gone = connect_unix("/nowhere/admin.sock".as_ref()).await.unwrap_err();
    assert!(matches!(gone, ChannelError::NoSocket { .. }), "{gone:?}");
}

#[tokio::test]
async fn the_broker_says_why_it_has_no_identity() {
    let domain = Domain::new(DOMAIN);
    let other = domain.inner.serve("other", "/other").await.unwrap();
    let brief = |endpoint| {
        let mut settings = settings(endpoint);
        settings.sync_timeout = Duration::from_millis(300);
        settings
    };
    let error = SpiffeIdentity::connect(&brief(other.endpoint())).await.unwrap_err();
    let expected = "the Workload API issued `spiffe://home.leasehold.test/other`, \
                    but not `spiffe://home.leasehold.test/leasehold`";
    assert_eq!(error.to_string(), expected);
    other.withdraw();
    let error = SpiffeIdentity::connect(&brief(other.endpoint())).await.unwrap_err();
    assert!(matches!(error, SpiffeError::NoIdentityIssued { .. }), "{error:?}");
    let error = SpiffeIdentity::connect(&brief("unix:/nowhere/agent.sock".into())).await.unwrap_err();
    assert!(matches!(error, SpiffeError::NoSocket { .. }), "{error:?}");
    let error = SpiffeIdentity::connect(&brief("nonsense".into())).await.unwrap_err();
    assert!(matches!(error, SpiffeError::BadEndpoint { .. }), "{error:?}");
    let mut strict = brief(other.endpoint());
    strict.dev_trust = false;
    let error = SpiffeIdentity::connect(&strict).await.unwrap_err();
    assert!(matches!(error, SpiffeError::DevTrustDomain { .. }), "{error:?}");
}

#[tokio::test]
async fn of_several_svids_the_configured_one_is_shown() {
    let world = World::new().await;
    world.broker.also("/aaa-first").unwrap();
    let before = server_leaf(&world).await;
    world.broker.rotate().unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut leaf = before.clone();
    while leaf == before {
        assert!(tokio::time::Instant::now() < deadline, "the rotated SVID was never shown");
        leaf = server_leaf(&world).await;
    }
    assert_eq!(::spiffe::cert::spiffe_id_from_der(&leaf).unwrap().to_string(), BROKER);
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let second = bind_tcp(listener.local_addr().unwrap()).await;
    assert!(matches!(second, Err(ListenError::PortInUse { .. })), "{second:?}");
}
