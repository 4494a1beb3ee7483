//! As much of HTTP/2 as a rude client needs (RFC 9113), written by hand: no library lets one be rude.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(super) const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// A frame as it came.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// The preface, and settings under which the server may send `window` bytes on each stream.
pub(super) fn hello(window: u32) -> Vec<u8> {
    let setting = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &setting)].concat()
}

/// The head of a call, without its message.
pub(super) fn head(stream: u32, path: &str) -> Vec<u8> {
    // RFC 7541: POST and http by their index, the rest as literals that are not remembered.
    let mut block = vec![0x83, 0x86];
    let literal =
        |index: &[u8], value: &str| [index, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    block.extend(literal(&[0x04], path));
    block.extend(literal(&[0x01], "leasehold.invalid"));
    // content-type has index 31, which takes a second byte.
    block.extend(literal(&[0x0f, 0x10], "application/grpc"));
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// The message of a call, and its end.
pub(super) fn message(stream: u32, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    frame(DATA, END_STREAM, stream, &[&[0], &length[..], message].concat())
}

/// The next frame; none once the server has closed the connection.
pub(super) async fn next(io: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut body = vec![0; usize::try_from(length).unwrap()];
    io.read_exact(&mut body).await.ok()?;
    Some(Frame { kind: head[3], body })
}

/// Sends what the server takes; a server that hangs up is one answer to rudeness.
pub(super) async fn send(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    if io.write_all(bytes).await.is_ok() {
        let _ = io.flush().await;
    }
}
