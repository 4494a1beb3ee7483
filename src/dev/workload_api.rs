//! The SPIFFE Workload API, served for one dev identity: SVIDs of both kinds, and bundles, streamed as they change.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use leasehold_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest,
    X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use tokio::{net::UnixListener, sync::watch};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{UnixListenerStream, WatchStream},
};
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Server};

use super::{
    authority::{Authority, DevBundle},
    ca::DevSvid,
};

/// Proof that a request was meant for this API and not smuggled in (SPIFFE Workload API, section 5.1).
const SECURITY_HEADER: &str = "workload.spiffe.io";
const STREAMS_PER_CONNECTION: usize = 16;

/// What the Workload API hands out at this moment.
#[derive(Clone, Debug)]
pub(super) struct Material {
    pub(super) issued: bool,
    pub(super) svids: Vec<DevSvid>,
    /// SPIFFE ID of the trust domain.
    pub(super) trust_domain: String,
    pub(super) bundle: DevBundle,
    /// By SPIFFE ID of their trust domain.
    pub(super) federated: BTreeMap<String, DevBundle>,
}

/// Serves until its task is aborted.
pub(super) async fn serve(
    listener: UnixListener,
    material: watch::Receiver<Material>,
    authority: Arc<Authority>,
) {
    let served = Server::builder()
        .concurrency_limit_per_connection(STREAMS_PER_CONNECTION)
        .add_service(SpiffeWorkloadApiServer::new(WorkloadApi { material, authority }))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the dev Workload API ended");
    }
}

struct WorkloadApi {
    material: watch::Receiver<Material>,
    authority: Arc<Authority>,
}

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl WorkloadApi {
    /// One answer now and one for each change; "no identity issued" ends the stream, as SPIRE does.
    fn updates<T: 'static>(
        &self,
        metadata: &MetadataMap,
        answer: fn(Material) -> T,
    ) -> Result<Response<Updates<T>>, Status> {
        check_header(metadata)?;
        let issued = move |material: Material| match material.issued {
            true => Ok(answer(material)),
            false => Err(no_identity()),
        };
        Ok(Response::new(Box::pin(WatchStream::new(self.material.clone()).map(issued))))
    }

    /// The ids that a request asks for: one of those issued, or all.
    fn issued(&self, wanted: &str) -> Result<Vec<String>, Status> {
        let material = self.material.borrow();
        let ids = material.svids.iter().map(DevSvid::id).filter(|id| wanted.is_empty() || *id == wanted);
        let ids: Vec<_> = ids.map(str::to_owned).collect();
        match material.issued && !ids.is_empty() {
            true => Ok(ids),
            false => Err(no_identity()),
        }
    }
}

fn no_identity() -> Status {
    Status::permission_denied("no identity issued")
}

fn check_header(metadata: &MetadataMap) -> Result<(), Status> {
    match metadata.get(SECURITY_HEADER).map(|value| value.as_bytes()) {
        Some(b"true") => Ok(()),
        Some(_) | None => Err(Status::invalid_argument("security header missing from request")),
    }
}

fn x509_svids(material: Material) -> X509svidResponse {
    let bundle = material.bundle.x509;
    let svid = |svid: &DevSvid| X509svid {
        spiffe_id: svid.id().to_owned(),
        x509_svid: svid.certificate().to_vec(),
        x509_svid_key: svid.expose_key().to_vec(),
        bundle: bundle.clone(),
        hint: String::new(),
    };
    X509svidResponse {
        svids: material.svids.iter().map(svid).collect(),
        crl: vec![],
        federated_bundles: material.federated.into_iter().map(|(id, bundle)| (id, bundle.x509)).collect(),
    }
}

fn x509_bundles(material: Material) -> X509BundlesResponse {
    let bundles = all_bundles(material).map(|(id, bundle)| (id, bundle.x509)).collect();
    X509BundlesResponse { crl: vec![], bundles }
}

fn jwt_bundles(material: Material) -> JwtBundlesResponse {
    JwtBundlesResponse { bundles: all_bundles(material).map(|(id, bundle)| (id, bundle.jwt)).collect() }
}

fn all_bundles(material: Material) -> impl Iterator<Item = (String, DevBundle)> {
    material.federated.into_iter().chain([(material.trust_domain, material.bundle)])
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Updates<X509svidResponse>;
    type FetchX509BundlesStream = Updates<X509BundlesResponse>;
    type FetchJWTBundlesStream = Updates<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.updates(request.metadata(), x509_svids)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.updates(request.metadata(), x509_bundles)
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        check_header(request.metadata())?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        let svid = |spiffe_id: String| {
            let svid = self.authority.token(&spiffe_id, &audience);
            let svid = svid.map_err(|error| Status::unavailable(error.to_string()))?;
            Ok(Jwtsvid { spiffe_id, svid, hint: String::new() })
        };
        let svids = self.issued(&spiffe_id)?.into_iter().map(svid).collect::<Result<_, Status>>()?;
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.updates(request.metadata(), jwt_bundles)
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented("whoever takes JWT-SVIDs checks them by the bundles"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::spiffe::{JwtSource, TrustDomain};
    use tempfile::TempDir;
    use tonic::Code;

    use super::*;
    use crate::{
        clock::{SystemTime, TimeSource as _},
        dev::trust_domain::{DevIdentity, DevTrustDomain},
    };

    const ID: &str = "spiffe://t.leasehold.test/a";
    const PATIENCE: Duration = Duration::from_secs(30);

    struct World {
        _dir: TempDir,
        domain: DevTrustDomain,
        identity: DevIdentity,
    }

    async fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let now = Arc::new(|| SystemTime.wall());
        let ttl = Duration::from_secs(600);
        let domain = DevTrustDomain::open(&dir.path().join("dev"), "t.leasehold.test", ttl, now).unwrap();
        let identity = domain.serve("a", "/a").await.unwrap();
        World { _dir: dir, domain, identity }
    }

    impl World {
        fn api(&self) -> WorkloadApi {
            WorkloadApi { material: self.identity.subscribe(), authority: self.domain.authority() }
        }

        async fn source(&self) -> JwtSource {
            JwtSource::builder().endpoint(self.identity.endpoint()).build().await.unwrap()
        }
    }

    fn with_header<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SECURITY_HEADER, "true".parse().unwrap());
        request
    }

    #[tokio::test]
    async fn requests_without_the_security_header_are_refused() {
        let world = world().await;
        let api = world.api();
        let token = JwtsvidRequest { audience: vec!["a".to_owned()], spiffe_id: String::new() };
        for answer in [
            api.fetch_x509svid(Request::new(X509svidRequest {})).await.map(drop),
            api.fetch_x509_bundles(Request::new(X509BundlesRequest {})).await.map(drop),
            api.fetch_jwtsvid(Request::new(token)).await.map(drop),
            api.fetch_jwt_bundles(Request::new(JwtBundlesRequest {})).await.map(drop),
        ] {
            assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn bundles_are_streamed_until_the_identity_is_withdrawn() {
        let world = world().await;
        let partner = DevBundle { x509: vec![2], jwt: b"{}".to_vec() };
        world.identity.federate("partner.example", Some(&partner));
        let answer = world.api().fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap();
        let mut stream = answer.into_inner();
        let bundles = stream.next().await.unwrap().unwrap().bundles;
        assert_eq!(bundles["spiffe://t.leasehold.test"], world.domain.bundle().x509);
        assert_eq!(bundles["spiffe://partner.example"], [2]);
        world.identity.withdraw();
        let end = stream.next().await.unwrap().unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
    }

    #[tokio::test]
    async fn a_jwt_source_finds_the_key_of_each_token() {
        let world = world().await;
        let source = world.source().await;
        let token = source.fetch_jwt_svid(["leasehold", "other"]).await.unwrap();
        assert_eq!(token.spiffe_id().to_string(), ID);
        assert_eq!(token.audience(), ["leasehold", "other"]);
        let home = TrustDomain::new("t.leasehold.test").unwrap();
        let bundle = source.try_bundle_for_trust_domain(&home).unwrap();
        assert!(bundle.find_jwt_authority(token.key_id()).is_some());
    }

    #[tokio::test]
    async fn a_jwt_source_follows_a_roll_and_a_federation() {
        let world = world().await;
        let source = world.source().await;
        let old = source.fetch_jwt_svid(["leasehold"]).await.unwrap();
        world.domain.publish_next_keys().unwrap();
        world.domain.activate_next_keys().unwrap();
        world.domain.withdraw_old_keys().unwrap();
        world.identity.federate("partner.example", Some(&world.domain.bundle()));
        let fresh = source.fetch_jwt_svid(["leasehold"]).await.unwrap();
        let holds = |name: &str, key: &str| {
            let bundle = source.try_bundle_for_trust_domain(&TrustDomain::new(name).unwrap());
            bundle.is_some_and(|bundle| bundle.find_jwt_authority(key).is_some())
        };
        let arrived = || holds("partner.example", fresh.key_id()) && !holds("t.leasehold.test", old.key_id());
        let mut updates = source.updated();
        let followed = async {
            while !arrived() {
                updates.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, followed).await.expect("the change never arrived");
        assert!(holds("t.leasehold.test", fresh.key_id()));
    }

    #[tokio::test]
    async fn a_token_is_for_somebody_and_of_an_identity_that_is_issued() {
        let world = world().await;
        let ask = async |audience: &[&str], id: &str| {
            let audience = audience.iter().map(|name| (*name).to_owned()).collect();
            let request = JwtsvidRequest { audience, spiffe_id: id.to_owned() };
            let answer = world.api().fetch_jwtsvid(with_header(request)).await;
            answer.map(|answer| answer.into_inner().svids.len()).map_err(|status| status.code())
        };
        assert_eq!(ask(&[], "").await, Err(Code::InvalidArgument));
        assert_eq!(ask(&[""], "").await, Err(Code::InvalidArgument));
        assert_eq!(ask(&["x"], "spiffe://t.leasehold.test/b").await, Err(Code::PermissionDenied));
        world.identity.also("/b").unwrap();
        assert_eq!(ask(&["x"], "").await, Ok(2));
        assert_eq!(ask(&["x"], ID).await, Ok(1));
        world.identity.withdraw();
        assert_eq!(ask(&["x"], "").await, Err(Code::PermissionDenied));
    }

    #[tokio::test]
    async fn tokens_are_not_judged_for_others() {
        let world = world().await;
        let answer = world.api().validate_jwtsvid(with_header(ValidateJwtsvidRequest::default())).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    }
}
