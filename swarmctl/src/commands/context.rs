//! `context create|use|ls|show|rm`.

use std::time::SystemTime;

use serde_json::Value;
use swarm_pki::{EnrolError, JoinError, OperatorCredentials, OperatorToken, Unreachable, enrol};

use crate::cli::ContextCommand;
use crate::context::{Entry, Files, LOCAL, PORT, check_name};
use crate::failure::{Code, Failure, Result};
use crate::output::{Format, Row, print, rfc3339};

pub async fn run(asked: Option<&str>, command: ContextCommand) -> Result<()> {
    let files = Files::open()?;
    match command {
        ContextCommand::Create { name, manager, token, force } => {
            create(&files, &name, &manager, &token, force).await
        }
        ContextCommand::Use { name } => {
            if name == LOCAL {
                return files.set_current(None);
            }
            files.entry(&name)?;
            files.set_current(Some(&name))?;
            println!("{name}");
            Ok(())
        }
        ContextCommand::Ls(args) => list(&files, asked, &args.format),
        ContextCommand::Show { name, format } => {
            let name = match (name, asked) {
                (Some(name), _) => name,
                (None, Some(asked)) => asked.to_owned(),
                (None, None) => files
                    .current()?
                    .ok_or_else(|| Failure::failed("no context is current").next("swarmctl context ls"))?,
            };
            show(&files, &name, format.as_ref())
        }
        ContextCommand::Rm { names } => {
            for name in names {
                files.remove(&name)?;
                println!("{name}");
            }
            Ok(())
        }
    }
}

async fn create(files: &Files, name: &str, managers: &[String], token: &str, force: bool) -> Result<()> {
    check_name(name)?;
    if !force && files.names()?.iter().any(|known| known == name) {
        return Err(Failure::failed(format!("there is a context {name:?} already"))
            .next(format!("choose another name, or: swarmctl context rm {name}")));
    }
    let token: OperatorToken = token
        .parse()
        .map_err(|error| Failure::usage("the token is not an operator token").why(format!("{error}")))?;
    let managers: Vec<String> = managers.iter().map(|address| with_port(address)).collect();
    let enrolled = enrol(&token, &managers).await.map_err(|error| refused(&error, &managers))?;
    let credentials = enrolled.credentials;
    // Those that were named lead, because they were reachable from here; the cluster may know more.
    let mut all = managers;
    all.extend(enrolled.managers);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|address| seen.insert(address.clone()));
    files.save(name, &all, &credentials)?;
    let first = files.current()?.is_none();
    if first {
        files.set_current(Some(name))?;
    }
    let role = credentials.identity().role;
    println!(
        "Context {name:?}: you are {} ({role}) of cluster {}, until {}.",
        credentials.name(),
        credentials.identity().cluster,
        until(&credentials)
    );
    if first {
        println!("It is the current context.");
    } else {
        println!("To make it the current one: swarmctl context use {name}");
    }
    Ok(())
}

fn with_port(address: &str) -> String {
    let bare_v6 = address.matches(':').count() > 1 && !address.starts_with('[');
    match address {
        _ if bare_v6 => format!("[{address}]:{PORT}"),
        _ if address.ends_with(']') || !address.contains(':') => format!("{address}:{PORT}"),
        _ => address.to_owned(),
    }
}

fn refused(error: &EnrolError, managers: &[String]) -> Failure {
    const NEW_TOKEN: &str = "an admin makes a new token with: swarmctl cluster operator-token";
    match error {
        EnrolError::Manager(JoinError::Unreachable(causes)) => {
            let tried = causes.split("; ").zip(managers).map(|(cause, address)| {
                let why = cause.strip_prefix(address.as_str()).unwrap_or(cause).trim_start_matches(": ");
                (address.clone(), why.to_owned())
            });
            Failure::unreachable(&Unreachable(tried.collect()))
        }
        EnrolError::Manager(JoinError::Refused { message, code, .. }) => match code {
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
                Failure::new(Code::NotAllowed, message.clone())
            }
            _ => Failure::failed(message.clone()),
        },
        EnrolError::WrongRoot { .. } => {
            Failure::new(Code::NotAllowed, "the manager is not the one that the token is of")
                .why(error.to_string())
                .next(NEW_TOKEN)
        }
        other => {
            let why = std::error::Error::source(other).map_or_else(String::new, ToString::to_string);
            let failure = Failure::failed(other.to_string());
            if why.is_empty() { failure } else { failure.why(why) }
        }
    }
}

fn until(credentials: &OperatorCredentials) -> String {
    let until = credentials.valid_until().unwrap_or(SystemTime::UNIX_EPOCH);
    let micros = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    rfc3339(u64::try_from(micros).unwrap_or(u64::MAX))
}

fn list(files: &Files, asked: Option<&str>, format: &Format) -> Result<()> {
    let current = match asked {
        Some(asked) => Some(asked.to_owned()),
        None => files.current()?,
    };
    let rows: Vec<Row> =
        files.names()?.iter().map(|name| row(files, name, current.as_deref() == Some(name))).collect();
    print(&rows, format, &["NAME", "CURRENT", "OPERATOR", "ROLE", "EXPIRES", "MANAGERS"])
}

/// A context that cannot be read is listed with the reason.
fn row(files: &Files, name: &str, current: bool) -> Row {
    let [mut operator, mut role, mut expires, mut error] = [const { String::new() }; 4];
    let managers = match files.entry(name) {
        Ok(Entry::Socket { endpoint }) => vec![endpoint],
        Ok(Entry::Managers { managers }) => {
            match files.credentials(name) {
                Ok(credentials) => {
                    credentials.name().clone_into(&mut operator);
                    role = credentials.identity().role.to_string();
                    expires = until(&credentials);
                }
                Err(failure) => error = failure.to_string(),
            }
            managers
        }
        Err(failure) => {
            error = failure.to_string();
            Vec::new()
        }
    };
    Row::default()
        .column("NAME", "Name", name)
        .column("CURRENT", "Current", if current { "*" } else { "" })
        .column("OPERATOR", "Operator", operator)
        .column("ROLE", "Role", role)
        .column("EXPIRES", "Expires", expires)
        .column("MANAGERS", "Managers", managers.join(", "))
        .field("Error", error)
}

fn show(files: &Files, name: &str, format: Option<&Format>) -> Result<()> {
    let current = files.current()?.as_deref() == Some(name);
    let mut object = serde_json::json!({ "Name": name, "Current": current });
    match files.entry(name)? {
        Entry::Socket { endpoint } => object["Endpoint"] = Value::from(endpoint),
        Entry::Managers { managers } => {
            let credentials = files.credentials(name)?;
            object["Managers"] = Value::from(managers);
            object["Operator"] = Value::from(credentials.name());
            object["Role"] = Value::from(credentials.identity().role.to_string());
            object["ClusterID"] = Value::from(credentials.identity().cluster.to_string());
            object["Expires"] = Value::from(until(&credentials));
        }
    }
    super::print_objects(vec![object], format)
}

#[cfg(test)]
mod tests {
    use super::with_port;

    #[test]
    fn managers_listen_where_nothing_else_is_said() {
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:2377");
        assert_eq!(with_port("node-1.example:4000"), "node-1.example:4000");
        assert_eq!(with_port("fd00::1"), "[fd00::1]:2377");
        assert_eq!(with_port("[fd00::1]"), "[fd00::1]:2377");
        assert_eq!(with_port("[fd00::1]:1"), "[fd00::1]:1");
    }
}
