//! Go and Python with their packages, and the programs built with them. All of it lies below target/, pinned by
//! go.sum and by the hashes in requirements.txt.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// Set to `required`, a missing tool is a failure.
const HOW: &str = "LEASEHOLD_INTEROP";
/// What one step of installing or building may take, on an empty cache and a slow line.
const BOUND: Duration = Duration::from_secs(600);
/// What the plug-ins of protoc are built from.
const PLUGINS: [&str; 2] =
    ["google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc"];

/// A program that can be started.
pub(super) struct Prepared {
    pub(super) program: PathBuf,
    pub(super) args: Vec<PathBuf>,
    pub(super) env: Vec<(&'static str, PathBuf)>,
    /// The Workload API's address, as its library takes it; the program runs in the folder of the socket.
    pub(super) endpoint: fn(&Path, &str) -> String,
}

/// Says aloud, past the capture of a test's output, that nothing was proven.
pub(crate) fn skip(language: &str, missing: &str) {
    assert!(std::env::var(HOW).as_deref() != Ok("required"), "{HOW}=required, and for {language}: {missing}");
    let line = format!("\nSKIPPED: what needs {language}, since {missing}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The Python program, with stubs made from proto/; or what is missing for it.
pub(super) async fn python() -> Result<Prepared, String> {
    let python = venv().await?;
    let stubs = empty(&cache().join("python/stubs"));
    let mut protoc = protoc(&python);
    protoc.arg(option("--python_out=", &stubs)).arg(option("--grpc_python_out=", &stubs));
    must(protoc.args(protos())).await;
    Ok(Prepared {
        program: python,
        args: vec![source("python/agent.py")],
        env: vec![("PYTHONPATH", stubs)],
        // gRPC's C core makes the path its `:authority`, percent-encoded, which no Rust server takes: without a
        // slash there is nothing to encode (docs/interop.md).
        endpoint: |_, socket| format!("unix:{socket}"),
    })
}

/// The Go program, built with stubs made from proto/; or what is missing for it.
pub(super) async fn go() -> Result<Prepared, String> {
    run(Command::new("go").arg("version")).await?;
    let python = venv().await.map_err(|missing| format!("protoc comes with grpcio-tools, and {missing}"))?;
    let (agent, bin) = (empty(&cache().join("go/agent")), cache().join("go/bin"));
    for file in ["agent.go", "go.mod", "go.sum"] {
        std::fs::copy(source("go").join(file), agent.join(file)).unwrap();
    }
    run(go_in(&agent).args(["mod", "download"])).await?;
    must(go_in(&agent).args(["build", "-o"]).arg(format!("{}/", bin.display())).args(PLUGINS)).await;
    let mut protoc = protoc(&python);
    for plugin in ["go", "go-grpc"] {
        let path = bin.join(format!("protoc-gen-{plugin}"));
        protoc.arg(option("--plugin=", &path)).arg(format!("--{plugin}_opt=module=leasehold.dev"));
        protoc.arg(option(&format!("--{plugin}_out="), &agent));
    }
    must(protoc.args(protos())).await;
    let program = bin.join("agent");
    must(go_in(&agent).args(["build", "-o"]).arg(&program).arg(".")).await;
    let endpoint = |dir: &Path, socket: &str| format!("unix://{}", dir.join(socket).display());
    Ok(Prepared { program, args: vec![], env: vec![], endpoint })
}

/// Python in a place of its own, with the packages of requirements.txt; both programs need it.
async fn venv() -> Result<PathBuf, String> {
    static VENV: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    VENV.get_or_init(make_venv).await.clone()
}

async fn make_venv() -> Result<PathBuf, String> {
    let (venv, wanted) = (cache().join("python/venv"), source("python/requirements.txt"));
    let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
    let text = std::fs::read_to_string(&wanted).unwrap();
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await?;
    let pip = ["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--require-hashes", "--requirement"];
    run(Command::new(&python).args(pip).arg(&wanted)).await?;
    std::fs::write(&stamp, text).unwrap();
    Ok(python)
}

/// Go with its caches below target/, writable so that they can be deleted like the rest of it.
fn go_in(dir: &Path) -> Command {
    let (mut command, home) = (Command::new("go"), cache().join("go"));
    command.current_dir(dir).env("GOFLAGS", "-modcacherw").env("GOPATH", home.join("path"));
    command.env("GOMODCACHE", home.join("mod")).env("GOCACHE", home.join("cache"));
    command
}

/// The compiler that comes with grpcio-tools.
fn protoc(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "grpc_tools.protoc"]).arg(option("--proto_path=", &root().join("proto")));
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
