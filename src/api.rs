//! Room 1, the door: tonic services, one file per service. Bytes become law's types here, with every bound checked,
//! and nothing of the wire goes further in.

mod admin;
mod agent;
mod audit;
mod drill;
mod follow;
mod identity;
pub mod layers;
mod lease;
mod read;
mod revocation;
pub mod room;
pub mod status;
mod target;
mod task;
mod watch;
mod write;

use std::sync::Arc;

use leasehold_proto::v1;
use tonic::service::Routes;
use tonic_health::server::health_reporter;

use crate::authority::{Operators, Standing};
use crate::broker::{Asker, Broker, Refused};
use crate::identity::on_behalf_of::SubjectTokens;
use crate::identity::spiffe::SpiffeIdentity;
use layers::Identified;

/// The largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 256 * 1024;
/// The largest question to health and reflection, which anybody proven may ask, in bytes.
const MAX_QUESTION_BYTES: usize = 4 * 1024;

/// What every service works with.
#[derive(Clone)]
pub struct Api {
    broker: Broker,
    operators: Arc<Operators>,
    identity: SpiffeIdentity,
    subjects: Arc<SubjectTokens>,
}

impl Api {
    /// An API over a broker, which tells how the identity stands that it is served under.
    #[must_use]
    pub fn new(
        broker: Broker,
        operators: Arc<Operators>,
        identity: SpiffeIdentity,
        subjects: Arc<SubjectTokens>,
    ) -> Self {
        Self { broker, operators, identity, subjects }
    }

    /// Every service. Both doors serve the same; the authority table says what each door lets through.
    ///
    /// # Errors
    /// Where the descriptors for reflection cannot be read.
    pub async fn routes(&self) -> Result<Routes, tonic_reflection::server::Error> {
        let (reporter, health) = health_reporter();
        reporter.set_serving::<v1::lease_service_server::LeaseServiceServer<Self>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(leasehold_proto::FILE_DESCRIPTOR_SET)
            .build_v1()?
            .max_decoding_message_size(MAX_QUESTION_BYTES);
        let api = || self.clone();
        use v1::admin_service_server::AdminServiceServer as Admin;
        use v1::agent_service_server::AgentServiceServer as Agent;
        use v1::audit_service_server::AuditServiceServer as Audit;
        use v1::identity_service_server::IdentityServiceServer as Identity;
        use v1::lease_service_server::LeaseServiceServer as Lease;
        use v1::revocation_service_server::RevocationServiceServer as Revocation;
        use v1::target_service_server::TargetServiceServer as Target;
        use v1::task_service_server::TaskServiceServer as Task;
        Ok(Routes::new(health.max_decoding_message_size(MAX_QUESTION_BYTES))
            .add_service(reflection)
            .add_service(Task::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Lease::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Identity::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Revocation::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Audit::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Target::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Agent::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES))
            .add_service(Admin::new(api()).max_decoding_message_size(MAX_REQUEST_BYTES)))
    }
}

/// Who makes a request, as the layers found out. A request without that came past them, which none can.
fn identified<T>(request: &tonic::Request<T>) -> Result<&Identified, tonic::Status> {
    request.extensions().get::<Identified>().ok_or_else(|| tonic::Status::internal("the door let nobody in"))
}

fn standing<T>(request: &tonic::Request<T>) -> Result<Standing, tonic::Status> {
    Ok(identified(request)?.standing.clone())
}

/// The agent that asks for its own.
fn asker<T>(request: &tonic::Request<T>) -> Result<Asker, tonic::Status> {
    let own = standing(request)?.own();
    own.ok_or_else(|| status::of(&Refused::new(leasehold_law::reason::Reason::RoleMissing, "agents only")))
}
