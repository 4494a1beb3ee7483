//! Generates the wire: parses the protos with protox (no protoc), then writes messages, clients, servers
//! and the descriptor set for reflection into `OUT_DIR`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use tonic_prost_build::FileDescriptorSet;

const SERVICES: [&str; 9] = [
    "leasehold/v1/common.proto",
    "leasehold/v1/task_service.proto",
    "leasehold/v1/lease_service.proto",
    "leasehold/v1/identity_service.proto",
    "leasehold/v1/revocation_service.proto",
    "leasehold/v1/audit_service.proto",
    "leasehold/v1/target_service.proto",
    "leasehold/v1/admin_service.proto",
    "leasehold/v1/agent_service.proto",
];

/// Messages whose derived `Debug` would print a secret; `src/redact.rs` writes it by hand. A message that is
/// skipped here and forgotten there does not compile.
const SECRET: [&str; 4] = [
    ".leasehold.v1.Credential",
    ".leasehold.v1.OnBehalfOf",
    ".leasehold.v1.RequestLeaseResponse",
    ".leasehold.v1.RenewLeaseResponse",
];
const WORKLOAD_SECRET: [&str; 3] = [".X509SVID", ".JWTSVID", ".ValidateJWTSVIDRequest"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=leasehold");
    println!("cargo::rerun-if-changed=third_party");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let leasehold = protox::compile(SERVICES, ["."])?;
    fs::write(out.join("leasehold.v1.bin"), without_comments(&leasehold).encode_to_vec())?;
    generate(leasehold, &SECRET, &out.join("leasehold"))?;
    let workload = protox::compile(["workload.proto"], ["third_party/spiffe"])?;
    generate(workload, &WORKLOAD_SECRET, &out.join("workload"))
}

fn generate(fds: FileDescriptorSet, secret: &[&str], dir: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    // Ordered maps make encodings and Debug the same in each run.
    tonic_prost_build::configure().btree_map(".").skip_debug(secret).out_dir(dir).compile_fds(fds)?;
    Ok(())
}

/// Comments become rustdoc; over reflection they would only be weight.
fn without_comments(fds: &FileDescriptorSet) -> FileDescriptorSet {
    let mut fds = fds.clone();
    fds.file.iter_mut().for_each(|file| file.source_code_info = None);
    fds
}
