//! A sink that is a syslog collector: RFC 5424 messages, framed by octet counts (RFC 6587, 3.4.1), over TCP.
//!
//! Syslog acknowledges nothing, so what was on its way when a connection broke is sent again.

use anteroom_proto::time::At;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Line, SEND_MAX, SinkError};

/// How many rows are sent again on a new connection.
pub(super) const RESENT_ROWS: u64 = 256;
/// Facility 13 is "log audit".
const FACILITY: u8 = 13;

/// A connection.
#[derive(Debug)]
pub(super) struct SyslogSink {
    stream: TcpStream,
}

impl SyslogSink {
    pub(super) async fn connect(address: &str) -> Result<Self, SinkError> {
        let connected = tokio::time::timeout(SEND_MAX, TcpStream::connect(address));
        Ok(Self { stream: connected.await.map_err(|_| SinkError::Slow)?? })
    }

    pub(super) async fn write(&mut self, lines: &[Line]) -> Result<(), SinkError> {
        let mut text = String::new();
        for line in lines {
            let message = message(line);
            text.push_str(&format!("{} {message}", message.len()));
        }
        // A collector that closed its side is noticed here at the latest one batch later; that batch is sent again.
        self.stream.write_all(text.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }
}

/// One message. Severity is `warning` for refusals, else `informational`.
pub(super) fn message(line: &Line) -> String {
    let severity = if line.warning { 4 } else { 6 };
    let priority = u16::from(FACILITY) * 8 + severity;
    let at = At::clamped(line.at_ms);
    format!("<{priority}>1 {at} - anteroom-broker - record-{} - {}", line.index, line.text)
}
