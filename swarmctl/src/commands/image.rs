//! `image load|ls|pull|rm`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use bytes::BytesMut;
use swarm_proto::v1;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_stream::StreamExt;

use super::task::short_image;
use crate::cli::{ImageCommand, ListArgs};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{Row, ago, filter, print, rfc3339, size};

const CHUNK_BYTES: usize = 512 << 10;

pub async fn run(client: &Client, command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Load { input, quiet } => load(client, input, quiet).await,
        ImageCommand::Ls(args) => list(client, &args).await,
        ImageCommand::Pull { image, quiet } => pull(client, image, quiet).await,
        ImageCommand::Rm { images, force } => {
            for name in images {
                client.images().remove(v1::RemoveImageRequest { name: name.clone(), force }).await?;
                println!("Removed: {name}");
            }
            Ok(())
        }
    }
}

async fn load(client: &Client, input: Option<PathBuf>, quiet: bool) -> Result<()> {
    let (reader, total): (Box<dyn AsyncRead + Send + Unpin>, Option<u64>) = match &input {
        Some(path) => {
            let open = |error: std::io::Error| {
                Failure::failed(format!("cannot read {}", path.display())).why(error.to_string())
            };
            let file = tokio::fs::File::open(path).await.map_err(open)?;
            let metadata = file.metadata().await.map_err(open)?;
            if metadata.is_dir() {
                return Err(Failure::failed(format!("{} is a directory", path.display()))
                    .next("give a tar archive, as of docker save"));
            }
            (Box::new(file), Some(metadata.len()))
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::usage("no archive was given").next("swarmctl image load -i FILE"));
        }
        None => (Box::new(tokio::io::stdin()), None),
    };
    let failed = std::sync::Arc::new(std::sync::Mutex::new(None));
    let stream =
        chunks(reader, total, !quiet && std::io::stderr().is_terminal(), std::sync::Arc::clone(&failed));
    let answer = client.images().load(stream).await;
    if let Some(error) = failed.lock().ok().and_then(|mut failed| failed.take()) {
        return Err(error);
    }
    for image in answer?.into_inner().images {
        println!("Loaded image: {}", short_image(&image.name));
    }
    Ok(())
}

type ReadFailure = std::sync::Arc<std::sync::Mutex<Option<Failure>>>;

/// The archive in chunks. A read error ends the stream and is kept for the caller, since gRPC has no way to carry it.
fn chunks(
    reader: Box<dyn AsyncRead + Send + Unpin>,
    total: Option<u64>,
    show: bool,
    failed: ReadFailure,
) -> impl tokio_stream::Stream<Item = v1::LoadImageRequest> {
    futures_util::stream::unfold((reader, 0u64), move |(mut reader, sent)| {
        let failed = std::sync::Arc::clone(&failed);
        async move {
            let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => {
                    if show && sent > 0 {
                        eprintln!();
                    }
                    None
                }
                Ok(count) => {
                    let sent = sent + count as u64;
                    if show {
                        eprint!(
                            "\rsending {} {}",
                            size(sent),
                            total.map_or(String::new(), |total| format!("of {}", size(total)))
                        );
                        let _ = std::io::stderr().flush();
                    }
                    Some((v1::LoadImageRequest { chunk: buffer.freeze() }, (reader, sent)))
                }
                Err(error) => {
                    if let Ok(mut failed) = failed.lock() {
                        *failed = Some(Failure::failed("the archive cannot be read").why(error.to_string()));
                    }
                    None
                }
            }
        }
    })
}

async fn pull(client: &Client, image: String, quiet: bool) -> Result<()> {
    let mut stream = client.images().pull(v1::PullImageRequest { name: image }).await?.into_inner();
    let terminal = std::io::stderr().is_terminal();
    let mut pulled = None;
    while let Some(progress) = stream.next().await {
        let progress = progress?;
        if !quiet && terminal {
            eprint!("\r\x1b[2K{} {}", progress.message, shown(progress.done_bytes, progress.total_bytes));
            let _ = std::io::stderr().flush();
        }
        pulled = progress.image.or(pulled);
    }
    if !quiet && terminal {
        eprintln!();
    }
    let image = pulled.ok_or_else(|| Failure::failed("the pull ended without an image"))?;
    println!("{}@{}", short_image(&image.name), image.digest);
    Ok(())
}

fn shown(done: u64, total: u64) -> String {
    if total == 0 { size(done) } else { format!("{} of {}", size(done), size(total)) }
}

async fn list(client: &Client, args: &ListArgs) -> Result<()> {
    let images = client.images().list(v1::ListImagesRequest {}).await?.into_inner().images;
    let rows = images.iter().map(|image| row(image, args.no_trunc)).collect();
    let rows = filter(rows, &args.filter, &[("name", "Repository"), ("reference", "Name"), ("tag", "Tag")])?;
    if args.quiet {
        rows.iter().filter_map(|row| row.text("Digest")).for_each(|digest| println!("{digest}"));
        return Ok(());
    }
    print(&rows, &args.format.format, &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"])
}

fn row(image: &v1::Image, full: bool) -> Row {
    let name = short_image(&image.name);
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.clone(), "latest".to_owned()),
    };
    let created = image.meta.map_or(0, |meta| meta.created_at);
    let id = image.digest.trim_start_matches("sha256:");
    Row::default()
        .column("REPOSITORY", "Repository", repository)
        .column("TAG", "Tag", tag)
        .column("IMAGE ID", "ID", crate::output::short(id, full))
        .column("CREATED", "CreatedSince", ago(created))
        .column("SIZE", "Size", size(image.total_bytes))
        .field("Name", name)
        .field("Digest", image.digest.clone())
        .field("CreatedAt", rfc3339(created))
}
