//! The SPIFFE Workload API, served for one dev identity: X.509-SVIDs and bundles, streamed as they change.

use std::{collections::BTreeMap, pin::Pin};

use leasehold_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
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

use super::ca::DevSvid;

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
    pub(super) bundle: Vec<u8>,
    /// DER bundles by SPIFFE ID of their trust domain.
    pub(super) federated: BTreeMap<String, Vec<u8>>,
}

/// Serves until its task is aborted.
pub(super) async fn serve(listener: UnixListener, material: watch::Receiver<Material>) {
    let served = Server::builder()
        .concurrency_limit_per_connection(STREAMS_PER_CONNECTION)
        .add_service(SpiffeWorkloadApiServer::new(WorkloadApi { material }))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the dev Workload API ended");
    }
}

struct WorkloadApi {
    material: watch::Receiver<Material>,
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
            false => Err(Status::permission_denied("no identity issued")),
        };
        Ok(Response::new(Box::pin(WatchStream::new(self.material.clone()).map(issued))))
    }
}

fn check_header(metadata: &MetadataMap) -> Result<(), Status> {
    match metadata.get(SECURITY_HEADER).map(|value| value.as_bytes()) {
        Some(b"true") => Ok(()),
        Some(_) | None => Err(Status::invalid_argument("security header missing from request")),
    }
}

fn x509_svids(material: Material) -> X509svidResponse {
    let bundle = material.bundle;
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
        federated_bundles: material.federated.into_iter().collect(),
    }
}

fn x509_bundles(material: Material) -> X509BundlesResponse {
    let mut bundles = material.federated;
    bundles.insert(material.trust_domain, material.bundle);
    X509BundlesResponse { crl: vec![], bundles: bundles.into_iter().collect() }
}

fn no_jwt() -> Status {
    Status::unimplemented("the dev trust domain issues no JWT-SVIDs")
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

    async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        Err(no_jwt())
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(no_jwt())
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(no_jwt())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn api() -> (watch::Sender<Material>, WorkloadApi) {
        let federated = BTreeMap::from([("spiffe://partner.example".to_owned(), vec![2])]);
        let trust_domain = "spiffe://t.leasehold.test".to_owned();
        let (tx, material) = watch::channel(Material {
            issued: true,
            svids: vec![],
            trust_domain,
            bundle: vec![1],
            federated,
        });
        (tx, WorkloadApi { material })
    }

    fn with_header<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(SECURITY_HEADER, "true".parse().unwrap());
        request
    }

    #[tokio::test]
    async fn requests_without_the_security_header_are_refused() {
        let (_tx, api) = api();
        let svids = api.fetch_x509svid(Request::new(X509svidRequest {})).await.map(drop);
        let bundles = api.fetch_x509_bundles(Request::new(X509BundlesRequest {})).await.map(drop);
        for answer in [svids, bundles] {
            assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[tokio::test]
    async fn bundles_are_streamed_until_the_identity_is_withdrawn() {
        let (tx, api) = api();
        let answer = api.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.unwrap();
        let mut stream = answer.into_inner();
        let bundles = stream.next().await.unwrap().unwrap().bundles;
        assert_eq!((bundles["spiffe://t.leasehold.test"][0], bundles["spiffe://partner.example"][0]), (1, 2));
        tx.send_modify(|material| material.issued = false);
        let end = stream.next().await.unwrap().unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
    }

    #[tokio::test]
    async fn jwt_svids_are_not_served() {
        let (_tx, api) = api();
        let answer = api.fetch_jwtsvid(with_header(JwtsvidRequest::default())).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unimplemented);
    }
}
