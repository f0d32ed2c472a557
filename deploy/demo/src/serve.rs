//! The server, over TCP (HTTP) and UDP: one thread per connection, bounded; ends on SIGTERM after the requests in flight.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MAX_CONNECTIONS: usize = 512;
const MAX_HEAD_BYTES: u64 = 16 << 10;
const IDLE: Duration = Duration::from_secs(10);
/// How long requests in flight may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(3);

static STOPPING: AtomicBool = AtomicBool::new(false);
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

pub fn run(port: u16) -> Result<(), String> {
    catch_signals();
    let listener = TcpListener::bind(("0.0.0.0", port))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    println!("{} listening on port {port}", identity());
    let datagrams = UdpSocket::bind(("0.0.0.0", port))
        .map_err(|error| format!("cannot bind UDP port {port}: {error}"))?;
    std::thread::spawn(move || accept(&listener));
    std::thread::spawn(move || answer(&datagrams));
    while !STOPPING.load(Ordering::Relaxed) {
        // Interrupted by the signal; the timeout only bounds a race.
        std::thread::sleep(Duration::from_millis(100));
    }
    let end = Instant::now() + DRAIN;
    while CONNECTIONS.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{} stopped", identity());
    Ok(())
}

fn catch_signals() {
    extern "C" fn stop(_: libc::c_int) {
        STOPPING.store(true, Ordering::Relaxed);
    }
    let handler = stop as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        if CONNECTIONS.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        std::thread::spawn(move || {
            let _ = converse(&stream);
            CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers every datagram with who it is.
fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(format!("{} client={}\n", identity(), from.ip()).as_bytes(), from);
    }
}

fn converse(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut wants_close = false;
        let mut head = reader.by_ref().take(MAX_HEAD_BYTES);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Ok(());
            }
            wants_close |= line.to_ascii_lowercase().starts_with("connection: close");
            if line.trim_end().is_empty() {
                break;
            }
        }
        let close = wants_close || STOPPING.load(Ordering::Relaxed);
        let body = if path == "/health" {
            "ok\n".to_owned()
        } else {
            format!("{} client={}\n", identity(), peer.ip())
        };
        let connection = if close { "close" } else { "keep-alive" };
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
            body.len()
        )?;
        if close {
            return Ok(());
        }
    }
}

/// `host=… version=… node=…`, from the environment that the service's spec gives.
fn identity() -> String {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| "-".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("host={} version={} node={}", host.trim(), variable("VERSION"), variable("NODE"))
}
