//! Unix sockets: files that only the right users reach (RULES R-19), and the kernel's word for who called.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::listener::ListenError;

/// A living listener answers at once; one that does not is alive too, only busy.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// The kernel's word for "nobody logged in", as for services.
const NO_LOGIN: u32 = u32::MAX;

/// Who may open the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The owner alone: socket 0600 in a folder 0700.
    Owner,
    /// The owner and one group, by gid: socket 0660 in a folder 0750.
    Group(u32),
}

impl Access {
    fn folder_mode(self) -> u32 {
        match self {
            Self::Owner => 0o700,
            Self::Group(_) => 0o750,
        }
    }

    fn socket_mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group(_) => 0o660,
        }
    }

    fn gid(self) -> Option<u32> {
        match self {
            Self::Owner => None,
            Self::Group(gid) => Some(gid),
        }
    }
}

pub(super) async fn bind(path: &Path, access: Access) -> Result<UnixListener, ListenError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    make_folder(folder, access)?;
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).map_err(|e| io_error(path, e))?;
    set_access(path, access.gid(), access.socket_mode())?;
    Ok(listener)
}

/// Makes the folder, or accepts one that is ours and no wider than allowed.
fn make_folder(folder: &Path, access: Access) -> Result<(), ListenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| io_error(folder, e))?;
    let found = fs::metadata(folder).map_err(|e| io_error(folder, e))?;
    check_folder(folder, &found, access)?;
    match found.uid() == own_uid() {
        true => set_access(folder, access.gid(), access.folder_mode()),
        false => Ok(()),
    }
}

fn check_folder(folder: &Path, found: &Metadata, access: Access) -> Result<(), ListenError> {
    let (path, owner) = (folder.to_owned(), found.uid());
    if owner != own_uid() && owner != 0 {
        return Err(ListenError::FolderOwner { path, owner });
    }
    let (mode, allowed) = (found.mode() & 0o777, access.folder_mode());
    match mode & !allowed {
        0 => Ok(()),
        _wider => Err(ListenError::FolderTooOpen { path, found: mode, allowed }),
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Group first: a change of group may clear mode bits.
fn set_access(path: &Path, gid: Option<u32>, mode: u32) -> Result<(), ListenError> {
    let changed = gid.map_or(Ok(()), |gid| chown(path, None, Some(gid)));
    changed
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|e| io_error(path, e))
}

/// Removes a socket file that nobody listens on; anything else stays.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| io_error(path, e))?,
    };
    let path_buf = || -> PathBuf { path.to_owned() };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path_buf() });
    }
    match timeout(PROBE_TIME, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| io_error(path, e))
        }
        Ok(Ok(_) | Err(_)) | Err(_) => Err(ListenError::SocketInUse { path: path_buf() }),
    }
}

fn io_error(path: &Path, source: io::Error) -> ListenError {
    ListenError::Io { at: path.display().to_string(), source }
}

/// A local user as the kernel knows it.
#[derive(Debug)]
pub(super) struct LocalUser {
    pub(super) uid: u32,
    pub(super) login_uid: Option<u32>,
}

pub(super) fn user_of(stream: &UnixStream) -> io::Result<LocalUser> {
    let peer = stream.peer_cred()?;
    Ok(LocalUser { uid: peer.uid(), login_uid: peer.pid().and_then(login_uid) })
}

/// Extra evidence for the record, never for a decision: a process that ended may have lent its pid to another.
fn login_uid(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    parse_login_uid(&text)
}

fn parse_login_uid(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn sockets_are_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let gid = rustix::process::getegid().as_raw();
        for (access, folder, socket) in [(Access::Owner, 0o700, 0o600), (Access::Group(gid), 0o750, 0o660)] {
            let path = dir.path().join(format!("{folder:o}")).join("admin.sock");
            let _listener = bind(&path, access).await.unwrap();
            assert_eq!((mode(path.parent().unwrap()), mode(&path)), (folder, socket), "{access:?}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let listener = bind(&path, Access::Owner).await.unwrap();
        let second = bind(&path, Access::Owner).await;
        assert!(matches!(second, Err(ListenError::SocketInUse { .. })), "{second:?}");
        drop(listener);
        bind(&path, Access::Owner).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_not_ours_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("private/file");
        DirBuilder::new().mode(0o700).create(file.parent().unwrap()).unwrap();
        fs::write(&file, "precious").unwrap();
        let onto_file = bind(&file, Access::Owner).await;
        assert!(matches!(onto_file, Err(ListenError::NotASocket { .. })), "{onto_file:?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let into_open = bind(&open.join("admin.sock"), Access::Owner).await;
        assert!(matches!(into_open, Err(ListenError::FolderTooOpen { found: 0o755, .. })), "{into_open:?}");
    }

    #[test]
    fn login_uids_are_read_as_the_kernel_writes_them() {
        let check = |text: &str, expect| assert_eq!(parse_login_uid(text), expect, "{text:?}");
        check("1000", Some(1000));
        check("0\n", Some(0));
        check("4294967295", None);
        check("", None);
        check("nobody", None);
    }
}
