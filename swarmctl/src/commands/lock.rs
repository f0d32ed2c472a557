//! `cluster update --autolock`, `cluster unlock-key`, `cluster unlock`: the key that managers wait for after a restart.

use std::io::{BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use swarm_proto::v1;

use crate::client::Client;
use crate::failure::{Failure, Result};

/// A key has 52 characters.
const MAX_LINE_BYTES: u64 = 1 << 10;
/// Of a shell: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

pub async fn set(client: &Client, autolock: bool) -> Result<()> {
    let before = client.clusters().get_unlock_key(v1::GetUnlockKeyRequest {}).await?.into_inner();
    let key = client.clusters().set_autolock(v1::SetAutolockRequest { autolock }).await?.into_inner();
    match (key.unlock_key.is_empty(), before.id == key.id) {
        (true, true) => println!("Managers were not locked."),
        (true, false) => println!("Managers are not locked any more; they start without a key."),
        (false, true) => {
            println!("Managers are locked already, with key {}: swarmctl cluster unlock-key", key.id)
        }
        (false, false) => {
            println!("Managers are locked from now on.");
            print_key(&key);
        }
    }
    Ok(())
}

pub async fn key(client: &Client, quiet: bool, rotate: bool) -> Result<()> {
    let key = if rotate {
        client.clusters().rotate_unlock_key(v1::RotateUnlockKeyRequest {}).await?.into_inner()
    } else {
        client.clusters().get_unlock_key(v1::GetUnlockKeyRequest {}).await?.into_inner()
    };
    if key.unlock_key.is_empty() {
        return Err(Failure::failed("the managers are not locked, so there is no unlock key")
            .next("swarmctl cluster update --autolock=true"));
    }
    if quiet {
        println!("{}", key.unlock_key);
        return Ok(());
    }
    if rotate {
        println!(
            "The unlock key was rotated. A manager that is down now wants the old key once more: keep it for a while."
        );
    }
    print_key(&key);
    Ok(())
}

fn print_key(key: &v1::UnlockKey) {
    println!("After a restart, a manager waits for `swarmctl cluster unlock` and this key ({}):\n", key.id);
    println!("    {}\n", key.unlock_key);
    println!("Keep it where no manager's disk is: without it, nobody can read what a locked manager holds.");
}

pub async fn unlock(client: &Client) -> Result<()> {
    let local = client.local("cluster unlock")?.status(v1::LocalStatusRequest {}).await?.into_inner();
    if !local.locked {
        println!("This node is not locked.");
        return Ok(());
    }
    let unlock_key = read_key().await?;
    client.local("cluster unlock")?.unlock(v1::UnlockRequest { unlock_key }).await?;
    println!("This manager is unlocked.");
    Ok(())
}

/// One line, not shown where it is typed.
///
/// # Errors
/// Nothing was given.
pub async fn read_key() -> Result<String> {
    let stdin = std::io::stdin();
    let hidden = stdin.is_terminal().then(|| {
        eprint!("Unlock key: ");
        let _ = std::io::stderr().flush();
        Hidden::begin()
    });
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = read => line.map_err(|error| Failure::failed(error.to_string()))??,
        _ = tokio::signal::ctrl_c() => {
            drop(hidden);
            // The thread that reads would hold the end up.
            std::process::exit(INTERRUPTED);
        }
    };
    if hidden.is_some() {
        eprintln!();
    }
    match line.trim() {
        "" => Err(Failure::usage("no unlock key was given").next("swarmctl cluster unlock < FILE")),
        key => Ok(key.to_owned()),
    }
}

/// The terminal shows nothing until this is dropped.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(std::io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &quiet);
        Self(Some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
