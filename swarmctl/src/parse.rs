//! Values of flags: sizes, durations, CPUs, ports, mounts, environment files. Docker's forms.

use std::time::Duration;

use swarm_proto::v1;

/// Lines of an environment file that are read at the most.
const MAX_ENV_FILE_BYTES: u64 = 1 << 20;
/// Ports that one range may name.
const MAX_RANGE: u16 = 1_000;

/// What was probably meant.
pub fn similar<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_DISTANCE: usize = 2;
    let distances = known.map(|known| (strsim::damerau_levenshtein(text, known), known));
    distances.filter(|(distance, _)| *distance <= MAX_DISTANCE).min().map(|(_, known)| known)
}

/// `512m`, `1.5g`, `4GiB`, `1048576`: bytes; units are powers of 1024, as Docker's.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(format!("{text:?} is not a size: write 512m, 1.5g or a number of bytes")),
    };
    scaled(number, factor)
        .ok_or_else(|| format!("{text:?} is not a size: write 512m, 1.5g or a number of bytes"))
}

/// `0.5`, `2`: CPUs as billionths.
pub fn cpus(text: &str) -> Result<u64, String> {
    scaled(text.trim(), 1_000_000_000)
        .ok_or_else(|| format!("{text:?} is not a number of CPUs: write 0.5 or 2"))
}

/// A decimal number times `factor`, exactly as far as nine decimals go.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let divisor = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u64::try_from(u128::from(part) * u128::from(factor) / divisor).ok()?;
    whole.checked_mul(factor)?.checked_add(part)
}

/// Go's durations: `10s`, `1m30s`, `500ms`, `2h`; a bare `0` too.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not a duration: write 10s, 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let factor = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(refuse()),
        };
        nanos = scaled(number, factor).and_then(|part| nanos.checked_add(part)).ok_or_else(refuse)?;
        rest = tail;
    }
    if text.is_empty() { Err(refuse()) } else { Ok(Duration::from_nanos(nanos)) }
}

/// Of nodes' certificates, as Swarm has it.
pub fn certificate_life(text: &str) -> Result<Duration, String> {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let life = duration(text)?;
    if life < HOUR || life > 24 * 90 * HOUR {
        return Err("it is from 1h to 2160h (90 days)".to_owned());
    }
    Ok(life)
}

/// `KEY=VALUE`.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not of the form KEY=VALUE")),
    }
}

/// `KEY` or `KEY=VALUE`, as labels are given.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("{text:?} has no key")),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None if text.is_empty() => Err("an empty label".to_owned()),
        None => Ok((text.to_owned(), String::new())),
    }
}

/// `KEY=VALUE`, or `KEY` for the value that this process has in its own environment.
pub fn env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("{text:?} has no name")),
        Some(_) => Ok(text.to_owned()),
        None => std::env::var(text).map(|value| format!("{text}={value}")).map_err(|_| {
            format!("{text:?} has no value and is not set in this environment: write {text}=VALUE")
        }),
    }
}

/// An environment file: `KEY=VALUE` lines, `#` comments.
pub fn env_file(path: &str) -> Result<Vec<String>, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("{path}: {error}"))?.len();
    if size > MAX_ENV_FILE_BYTES {
        return Err(format!("{path}: larger than 1 MiB"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| env(line).map_err(|error| format!("{path}: {error}")))
        .collect()
}

/// A published port: `80`, `8080:80`, `8080:80/udp`, `8000-8002:80-82`, or
/// `published=8080,target=80,protocol=tcp,mode=host`. A range gives several.
pub fn ports(text: &str) -> Result<Vec<v1::PortSpec>, String> {
    if text.contains('=') { long_port(text).map(|port| vec![port]) } else { short_ports(text) }
}

fn short_ports(text: &str) -> Result<Vec<v1::PortSpec>, String> {
    let refuse = || {
        format!("{text:?} is not a published port: write 8080:80, 8080:80/udp or published=8080,target=80")
    };
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = port_protocol(protocol).ok_or_else(refuse)?;
    let (published, target) = match numbers.split_once(':') {
        Some((published, target)) => {
            (Some(range(published).ok_or_else(refuse)?), range(target).ok_or_else(refuse)?)
        }
        None => (None, range(numbers).ok_or_else(refuse)?),
    };
    if published.as_ref().is_some_and(|published| published.len() != target.len()) {
        return Err(format!("{text:?}: both ranges must have the same length"));
    }
    let first = published.map_or(0, |published| *published.start());
    let port = |(offset, target): (u16, u16)| v1::PortSpec {
        protocol,
        mode: v1::port_spec::Mode::Ingress as i32,
        target: target.into(),
        published: if first == 0 { 0 } else { u32::from(first) + u32::from(offset) },
    };
    Ok((0..).zip(target).map(port).collect())
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first >= 1 && last >= first && last - first < MAX_RANGE).then_some(first..=last)
}

fn port_protocol(text: &str) -> Option<i32> {
    match text {
        "tcp" => Some(v1::port_spec::Protocol::Tcp as i32),
        "udp" => Some(v1::port_spec::Protocol::Udp as i32),
        _ => None,
    }
}

fn long_port(text: &str) -> Result<v1::PortSpec, String> {
    let mut port = v1::PortSpec {
        protocol: v1::port_spec::Protocol::Tcp as i32,
        mode: v1::port_spec::Mode::Ingress as i32,
        target: 0,
        published: 0,
    };
    for field in text.split(',') {
        let (key, value) = key_value(field)?;
        let number = || {
            value
                .parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .map(u32::from)
                .ok_or(format!("{value:?} is not a port"))
        };
        match key.as_str() {
            "published" => port.published = number()?,
            "target" => port.target = number()?,
            "protocol" => {
                port.protocol = port_protocol(&value).ok_or(format!("{value:?} is neither tcp nor udp"))?
            }
            "mode" => {
                port.mode = match value.as_str() {
                    "ingress" => v1::port_spec::Mode::Ingress as i32,
                    "host" => v1::port_spec::Mode::Host as i32,
                    _ => return Err(format!("{value:?} is neither ingress nor host")),
                }
            }
            _ => {
                return Err(format!(
                    "{text:?}: unknown key {key:?}; known are published, target, protocol and mode"
                ));
            }
        }
    }
    if port.target == 0 { Err(format!("{text:?} has no target port")) } else { Ok(port) }
}

/// A mount: `type=bind|volume|tmpfs,source=…,target=…,readonly`.
pub fn mount(text: &str) -> Result<v1::Mount, String> {
    let (mut kind, mut source, mut target, mut size) = ("volume".to_owned(), String::new(), String::new(), 0);
    let mut read_only = false;
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => value.clone_into(&mut kind),
            "source" | "src" => value.clone_into(&mut source),
            "target" | "destination" | "dst" => value.clone_into(&mut target),
            "readonly" | "ro" => read_only = value == "true" || value == "1",
            "tmpfs-size" => size = bytes(value)?,
            _ => {
                return Err(format!(
                    "{text:?}: unknown key {key:?}; known are type, source, target, readonly and tmpfs-size"
                ));
            }
        }
    }
    if target.is_empty() {
        return Err(format!("{text:?} has no target"));
    }
    let kind = match (kind.as_str(), source.is_empty()) {
        ("bind", false) => v1::mount::Kind::BindSource(source),
        ("volume", false) => v1::mount::Kind::VolumeName(source),
        ("tmpfs", true) => v1::mount::Kind::Tmpfs(v1::mount::Tmpfs { size_bytes: size }),
        ("tmpfs", false) => return Err(format!("{text:?}: a tmpfs has no source")),
        ("bind" | "volume", true) => return Err(format!("{text:?} has no source")),
        _ => return Err(format!("{text:?}: a mount's type is bind, volume or tmpfs")),
    };
    Ok(v1::Mount { target, read_only, kind: Some(kind) })
}

/// `nofile=1024:2048` or `nofile=1024`.
pub fn ulimit(text: &str) -> Result<v1::Ulimit, String> {
    let (name, limits) = key_value(text)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((&limits, &limits));
    let number = |value: &str| match value {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => value.parse().map_err(|_| format!("{text:?}: {value:?} is not a limit")),
    };
    Ok(v1::Ulimit { soft: number(soft)?, hard: number(hard)?, name })
}

/// `NAME:ADDRESS`.
pub fn host(text: &str) -> Result<v1::HostEntry, String> {
    match text.split_once([':', '=']) {
        Some((name, address)) if !name.is_empty() && address.parse::<std::net::IpAddr>().is_ok() => {
            Ok(v1::HostEntry { name: name.to_owned(), address: address.to_owned() })
        }
        _ => Err(format!("{text:?} is not of the form NAME:ADDRESS")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_cpus_and_durations_are_dockers() {
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(bytes("1024"), Ok(1024));
        assert!(
            bytes("64x").is_err()
                && bytes("").is_err()
                && bytes("-1m").is_err()
                && bytes("99999999999g").is_err()
        );
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(duration("10").is_err() && duration("").is_err() && duration("s").is_err());
    }

    fn shown(text: &str) -> String {
        match ports(text) {
            Ok(ports) => ports
                .iter()
                .map(|p| format!("{}:{}:{}:{}", p.published, p.target, p.protocol, p.mode))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error,
        }
    }

    #[test]
    fn ports_take_short_and_long_forms() {
        assert_eq!(shown("80"), "0:80:1:1");
        assert_eq!(shown("8080:80/udp"), "8080:80:2:1");
        assert_eq!(shown("8000-8001:80-81"), "8000:80:1:1 8001:81:1:1");
        assert_eq!(shown("published=8080,target=80,mode=host"), "8080:80:1:2");
        for bad in [
            "",
            "0:80",
            "80:",
            "8080:70000",
            "1-3:1-2",
            "target=x",
            "published=80",
            "80/sctp",
            "target=80,foo=1",
        ] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_need_type_source_and_target() {
        assert!(mount("type=bind,source=/a,target=/b,readonly").is_ok_and(|mount| mount.read_only));
        assert!(mount("source=data,target=/b").is_ok());
        assert!(mount("type=tmpfs,target=/t,tmpfs-size=1m").is_ok());
        for bad in
            ["type=bind,target=/b", "type=bind,source=/a", "type=x,source=/a,target=/b", "target=/b,foo=1"]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }
}
