//! Go and Python with their packages, and the programs built with them. What is made lies below target/, what is
//! fetched in the caches of their own tools; all of it is pinned, by go.sum and by the hashes in requirements.txt.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// Set to `required`, a missing tool is a failure.
const HOW: &str = "LEASEHOLD_TOOLS";
/// What one step of fetching or building may take, on an empty cache and a slow line.
const BOUND: Duration = Duration::from_secs(600);
/// How often something is fetched before its registry is said to be out of reach.
const TRIES: usize = 3;
/// How it is said.
const OUT_OF_REACH: &str = "nothing could be fetched";
/// Python looks for packages where it is told to, and not among the machine's own, which may be older.
const ALONE: &str = "-S";
/// What the plug-ins of protoc are built from.
const PLUGINS: [&str; 2] =
    ["google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"];

/// A program that can be started.
pub(super) struct Prepared {
    pub(super) program: PathBuf,
    pub(super) args: Vec<PathBuf>,
    pub(super) env: Vec<(&'static str, OsString)>,
    /// The Workload API's address, as its library takes it; the program runs in the folder of the socket.
    pub(super) endpoint: fn(&Path, &str) -> String,
}

/// Says aloud, past the capture of a test's output, that nothing was proven, and leaves word for whoever counts. A registry
/// that is out of reach is no fault of a change, so that it fails none.
pub(crate) fn skip(what: &str, missing: &str) {
    let is_required = std::env::var(HOW).as_deref() == Ok("required") && !missing.contains(OUT_OF_REACH);
    assert!(!is_required, "{HOW}=required, and for {what}: {missing}");
    let line = format!("\nSKIPPED: what needs {what}, since {missing}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    std::fs::create_dir_all(cache()).unwrap();
    let word = std::fs::OpenOptions::new().append(true).create(true).open(cache().join("skipped"));
    word.unwrap().write_all(format!("what needs {what}\n").as_bytes()).unwrap();
}

/// The Python program, with stubs made from proto/; or what is missing for it.
pub(super) async fn python() -> Result<Prepared, String> {
    let packages = packages().await?;
    let stubs = empty(&cache().join("python/stubs"));
    let mut protoc = protoc(&packages);
    protoc.arg(option("--python_out=", &stubs)).arg(option("--grpc_python_out=", &stubs));
    must(protoc.args(protos())).await;
    Ok(Prepared {
        program: "python3".into(),
        args: vec![ALONE.into(), source("python/agent.py")],
        env: vec![("PYTHONPATH", std::env::join_paths([stubs, packages]).unwrap())],
        // gRPC's C core makes the path its `:authority`, percent-encoded, which no Rust server takes: without a
        // slash there is nothing to encode (docs/interop.md).
        endpoint: |_, socket| format!("unix:{socket}"),
    })
}

/// The Go program, with stubs made from proto/; or what is missing for it.
pub(super) async fn go() -> Result<Prepared, String> {
    let (agent, bin) = (empty(&cache().join("go/agent")), cache().join("go/bin"));
    for file in ["agent.go", "go.mod", "go.sum"] {
        std::fs::copy(source("go").join(file), agent.join(file)).unwrap();
    }
    // The compiler of stubs comes with grpcio-tools: one language is fetched while the other builds.
    let (plugins, packages) = tokio::join!(plugins(&agent, &bin), packages());
    plugins?;
    let packages = packages.map_err(|missing| format!("protoc comes with grpcio-tools, and {missing}"))?;
    let mut protoc = protoc(&packages);
    for plugin in ["go", "go-grpc"] {
        let path = bin.join(format!("protoc-gen-{plugin}"));
        protoc.arg(option("--plugin=", &path)).arg(format!("--{plugin}_opt=module=leasehold.dev"));
        protoc.arg(option(&format!("--{plugin}_out="), &agent));
    }
    must(protoc.args(protos())).await;
    let program = bin.join("agent");
    must(build(&agent, &program).arg(".")).await;
    let endpoint = |dir: &Path, socket: &str| format!("unix://{}", dir.join(socket).display());
    Ok(Prepared { program, args: vec![], env: vec![], endpoint })
}

/// Fetches what go.mod names, and builds the plug-ins of protoc.
async fn plugins(agent: &Path, bin: &Path) -> Result<(), String> {
    run(Command::new("go").current_dir(agent).arg("version")).await?;
    fetch(Command::new("go").current_dir(agent).args(["mod", "download"])).await?;
    must(build(agent, &bin.join("")).args(PLUGINS)).await;
    Ok(())
}

/// Without cgo, so that no C compiler is needed, and without what only debuggers read.
fn build(dir: &Path, out: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(dir).env("CGO_ENABLED", "0").args(["build", "-ldflags=-s -w", "-o"]).arg(out);
    command
}

/// The packages of requirements.txt, in a folder of their own; both programs need it.
async fn packages() -> Result<PathBuf, String> {
    static PACKAGES: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    PACKAGES.get_or_init(install).await.clone()
}

async fn install() -> Result<PathBuf, String> {
    let (folder, wanted) = (cache().join("python/packages"), source("python/requirements.txt"));
    let (stamp, text) = (folder.join("installed.txt"), std::fs::read_to_string(&wanted).unwrap());
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return Ok(folder);
    }
    run(Command::new("python3").args(["-m", "pip", "--version"])).await?;
    empty(&folder);
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:", "--require-hashes"]);
    pip.args(["--upgrade", "--target"]).arg(&folder).arg("--requirement").arg(&wanted);
    fetch(&mut pip).await?;
    std::fs::write(&stamp, text).unwrap();
    Ok(folder)
}

/// The compiler that comes with grpcio-tools.
fn protoc(packages: &Path) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", packages)
        .args([ALONE, "-m", "grpc_tools.protoc"])
        .arg(option("--proto_path=", &root().join("proto")));
    command
}

fn protos() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("proto/leasehold/v1")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}{}", path.display())
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> PathBuf {
    root().join("tests/interop").join(name)
}

pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("interop")
}

/// The folder, with nothing in it.
fn empty(folder: &Path) -> PathBuf {
    _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).unwrap();
    folder.to_owned()
}

/// What can only fail if something here is wrong.
async fn must(command: &mut Command) {
    run(command).await.unwrap_or_else(|error| panic!("{error}"));
}

/// Runs what asks a registry: again where that fails, since lines and registries have bad moments.
pub(crate) async fn fetch(command: &mut Command) -> Result<(), String> {
    let mut told = String::new();
    for _ in 0..TRIES {
        match run(command).await {
            Ok(()) => return Ok(()),
            Err(error) => told = error,
        }
    }
    Err(format!("{OUT_OF_REACH}, {TRIES} times over: {told}"))
}

/// Runs a command to its end, and gives what it complained of.
pub(crate) async fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{:?}", command.as_std().get_program());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(BOUND, output).await;
    let output = output.map_err(|_| format!("{name} took more than {BOUND:?}"))?;
    let output = output.map_err(|error| format!("{name} cannot be run: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{:?} failed: {}", command.as_std(), String::from_utf8_lossy(&output.stderr))),
    }
}
