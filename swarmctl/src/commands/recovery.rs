//! `cluster backup`, `cluster restore`, `cluster recover`: what an operator does before and after the worst.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use swarm_proto::backup::{BackupError, Reader};
use swarm_proto::v1;
use tokio_stream::StreamExt;

use super::lock::read_key;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{rfc3339, size};

const CHUNK_BYTES: usize = 256 << 10;
/// Managers whose addresses are shown.
const MAX_SHOWN: usize = 15;

/// Checks each byte on its way to the file, which has its name only once it is whole.
pub async fn backup(client: &Client, path: &Path) -> Result<()> {
    let to_stdout = path == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage("a backup is not for a terminal").next("swarmctl cluster backup FILE"));
    }
    let mut pieces = client.clusters().backup(v1::BackupRequest {}).await?.into_inner();
    let partial = Partial::of(path);
    let mut out: Box<dyn Write> =
        if to_stdout { Box::new(std::io::stdout()) } else { Box::new(partial.create()?) };
    let mut reader = Reader::default();
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let data = piece?.data;
        reader.push(&data).map_err(|error| broken("what the manager sent", &error))?;
        out.write_all(&data)?;
        bytes += data.len() as u64;
    }
    let header = reader.finish().map_err(|error| broken("what the manager sent", &error))?;
    out.flush()?;
    drop(out);
    if !to_stdout {
        partial.finish(path)?;
    }
    let state = header.state.unwrap_or_default();
    let shown = if to_stdout { "stdout".to_owned() } else { path.display().to_string() };
    eprintln!(
        "Backup of cluster {} at index {} written to {shown} ({}): {}.",
        state.cluster_id,
        state.index,
        size(bytes),
        counts(&state)
    );
    if header.unlock_key_id.is_empty() {
        eprintln!(
            "It holds the private key of the cluster's CA and all secrets in the clear: keep it as safe as a manager."
        );
    } else {
        eprintln!(
            "It is encrypted with unlock key {}: keep that key, too, also after it is rotated.",
            header.unlock_key_id
        );
    }
    eprintln!("Images are not part of it; load or pull them again after a restore.");
    Ok(())
}

/// A file that gets its name when it is whole.
struct Partial(PathBuf);

impl Partial {
    fn of(path: &Path) -> Self {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        Self(name.into())
    }

    fn create(&self) -> Result<File> {
        let cannot = |error: std::io::Error| {
            Failure::failed(format!("cannot write {}", self.0.display())).why(error.to_string())
        };
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(cannot(error)),
            _ => {}
        }
        // Newly made with its mode: never readable by others, not even for a moment.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0).map_err(cannot)
    }

    fn finish(&self, path: &Path) -> Result<()> {
        File::open(&self.0)?.sync_all()?;
        std::fs::rename(&self.0, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?)
    }
}

pub fn verify(path: &Path) -> Result<()> {
    let header = read_header(path)?;
    println!("{} is whole.", path.display());
    show(&header);
    Ok(())
}

/// Reads all of a file.
fn read_header(path: &Path) -> Result<v1::BackupHeader> {
    let shown = path.display().to_string();
    let cannot =
        |error: std::io::Error| Failure::failed(format!("cannot read {shown}")).why(error.to_string());
    let mut file = File::open(path).map_err(cannot)?;
    let mut reader = Reader::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(cannot)?;
        if count == 0 {
            return reader.finish().map_err(|error| broken(&shown, &error));
        }
        reader.push(&buffer[..count]).map_err(|error| broken(&shown, &error))?;
    }
}

fn broken(what: &str, error: &BackupError) -> Failure {
    Failure::failed(format!("{what} is not a whole backup")).why(error.to_string())
}

fn show(header: &v1::BackupHeader) {
    let state = header.state.clone().unwrap_or_default();
    println!("  cluster     {}", state.cluster_id);
    println!("  taken       {}, at index {} of term {}", rfc3339(header.taken_at), state.index, state.term);
    println!("  last change {}", rfc3339(state.at));
    println!("  holds       {}", counts(&state));
    println!("  managers    {}", managers(&state.managers));
    let encrypted = match header.unlock_key_id.as_str() {
        "" => "no: it holds the CA's key in the clear".to_owned(),
        id => format!("with unlock key {id}"),
    };
    println!("  encrypted   {encrypted}");
}

fn counts(state: &v1::StateSummary) -> String {
    let count = |count: u32, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    [
        count(state.nodes, "node"),
        count(state.services, "service"),
        count(state.tasks, "task"),
        count(state.images, "image name"),
    ]
    .join(", ")
}

fn managers(managers: &[v1::ManagerSummary]) -> String {
    let one = |manager: &v1::ManagerSummary| format!("{} ({})", manager.hostname, manager.address);
    let shown: Vec<String> = managers.iter().take(MAX_SHOWN).map(one).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

pub async fn restore(client: &Client, path: &Path, yes: bool, begin: v1::RestoreBegin) -> Result<()> {
    let header = read_header(path)?;
    println!("Restoring {}:", path.display());
    show(&header);
    println!(
        "This node becomes the only manager of that cluster. Its workers come back by themselves with their running tasks; \
         the managers above are removed from it, and have to join again.\nMake sure that none of them runs any more."
    );
    confirm(yes)?;
    let unlock_key = if header.unlock_key_id.is_empty() { String::new() } else { read_key().await? };
    let begin = v1::RestoreBegin { unlock_key, ..begin };
    let answer = client.local("cluster restore")?.restore(upload(path, begin)?).await?.into_inner();
    let node = answer.status.unwrap_or_default().node_id;
    println!("Restored: this node ({node}) is the only manager, at {}.", answer.address);
    let known = header.state.unwrap_or_default().managers;
    if !known.iter().any(|manager| manager.address == answer.address) {
        println!(
            "Workers look for the managers where they were: {}. Give this node one of these addresses, or they will not find \
             it.",
            managers(&known)
        );
    }
    println!("Next: swarmctl node ls; swarmctl cluster join-token manager");
    Ok(())
}

/// The file in pieces. One that cannot be read any more ends the upload, and is refused as cut.
fn upload(
    path: &Path,
    begin: v1::RestoreBegin,
) -> Result<impl tokio_stream::Stream<Item = v1::RestoreRequest> + use<>> {
    let file = File::open(path)?;
    let first = v1::RestoreRequest { begin: Some(begin), ..v1::RestoreRequest::default() };
    let pieces = futures_util::stream::unfold(file, |mut file| async move {
        let mut data = vec![0; CHUNK_BYTES];
        let count = file.read(&mut data).ok().filter(|count| *count > 0)?;
        data.truncate(count);
        Some((v1::RestoreRequest { begin: None, data: data.into() }, file))
    });
    Ok(tokio_stream::once(first).chain(pieces))
}

pub async fn recover(client: &Client, yes: bool) -> Result<()> {
    let plan =
        client.local("cluster recover")?.recover(v1::RecoverRequest { confirmed: false }).await?.into_inner();
    let kept = plan.kept.unwrap_or_default();
    println!("This manager goes on alone with what its own disk holds:");
    println!("  cluster  {}", kept.cluster_id);
    println!("  up to    index {}, {}", kept.index, rfc3339(kept.at));
    if plan.uncommitted > 0 {
        println!("  and      {} entries after that, which are not known to be committed", plan.uncommitted);
    }
    println!("  keeps    {}", counts(&kept));
    println!("  drops    managers {}", managers(&plan.dropped));
    println!(
        "What only the dropped managers hold is lost. Their nodes are removed, their tasks are replaced; if one comes back, it \
         is refused, has to leave, and may join again.\nMake sure that none of them runs any more."
    );
    confirm(yes)?;
    client.local("cluster recover")?.recover(v1::RecoverRequest { confirmed: true }).await?;
    println!(
        "This node is the only manager now. Next: swarmctl node ls; swarmctl cluster join-token manager"
    );
    Ok(())
}

fn confirm(yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(
            Failure::usage("nothing was done: this needs a yes").next("repeat the command with --yes")
        );
    }
    print!("Go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().take(16).read_line(&mut line)?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::failed("nothing was done")),
    }
}
