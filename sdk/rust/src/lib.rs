//! The Rust SDK: open a task, lease, renew, complete.
//!
//! ```no_run
//! # async fn run() -> Result<(), leasehold_client::ClientError> {
//! let client = leasehold_client::Client::from_env().await?;
//! let task = client.task().scope("orders.read@orders-db").refs([("run", "8812")]).open().await?;
//! let db = task.lease("orders.read@orders-db").await?; // kept alive and renewed
//! let dsn = db.dsn()?; // `dsn.expose()` is what a PostgreSQL client takes
//! let ended = task.complete().await?;
//! println!("{ended}"); // says what is confirmed dead, and what is pending
//! # drop(dsn);
//! # Ok(())
//! # }
//! ```
//!
//! All input and output of a [`Client`] runs on one thread of its own, heartbeats too: an agent that blocks its
//! event loop does not lose its task.

pub mod bearer;
pub mod channel;
mod client;
mod credential;
mod error;
mod io;
mod lease;
mod line;
mod manifest;
mod options;
mod pair;
pub mod platform;
mod renewal;
mod retry;
mod task;
mod time;
mod watch;

pub use bearer::{FileTokens, TokenSource, TokenSourceError};
pub use channel::{ChannelError, connect_spiffe, connect_unix};
pub use client::Client;
pub use credential::{Credential, Secret};
pub use error::{ClientError, FieldViolation, HelpLink, Refusal};
pub use lease::{Lease, LeaseStage, LeaseStatus};
pub use leasehold_proto::v1;
pub use line::Line;
pub use manifest::Manifest;
pub use options::Options;
pub use pair::{Pair, PairError};
pub use platform::Platform;
pub use retry::request_id;
pub use task::{Ending, Task, TaskBuilder, TaskStatus};
pub use time::{deadline_of, system_time, wire_duration};
pub use watch::{Events, TaskEvent};
