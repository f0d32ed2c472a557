//! The load: each request on a connection of its own, a bounded number at a time, for a bounded time.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const MAX_SECONDS: u64 = 600;
const MAX_CONNECTIONS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(3);
/// Pause of each connection between requests, so that a demo does not take the machine for itself.
const PAUSE: Duration = Duration::from_millis(2);
const MAX_ANSWER_BYTES: u64 = 64 << 10;

#[derive(Default)]
struct Tally {
    answered: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
}

pub fn run(address: &str, seconds: u64, connections: usize) -> Result<(), String> {
    let target = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| format!("{address:?} is not HOST:PORT"))?;
    let end = Instant::now() + Duration::from_secs(seconds.min(MAX_SECONDS));
    let workers: Vec<_> = (0..connections.clamp(1, MAX_CONNECTIONS))
        .map(|_| std::thread::spawn(move || work(target, end)))
        .collect();
    let mut total = Tally::default();
    for worker in workers {
        let tally = worker.join().map_err(|_| "a worker panicked".to_owned())?;
        tally.answered.into_iter().for_each(|(who, count)| *total.answered.entry(who).or_default() += count);
        tally.failed.into_iter().for_each(|(why, count)| *total.failed.entry(why).or_default() += count);
    }
    let answered: u64 = total.answered.values().sum();
    let failed: u64 = total.failed.values().sum();
    total.answered.iter().for_each(|(who, count)| println!("  {count:>7}  {who}"));
    total.failed.iter().for_each(|(why, count)| println!("  {count:>7}  FAILED: {why}"));
    println!("requests={} failed={failed}", answered + failed);
    Ok(())
}

fn work(target: SocketAddr, end: Instant) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < end {
        match request(target) {
            Ok(who) => *tally.answered.entry(who).or_default() += 1,
            Err(error) => *tally.failed.entry(error.to_string()).or_default() += 1,
        }
        std::thread::sleep(PAUSE);
    }
    tally
}

/// The answer's body, without the client's address.
fn request(target: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "no HTTP answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(invalid)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(invalid());
    }
    Ok(body.trim().split(" client=").next().unwrap_or_default().to_owned())
}
