//! A file system that is small enough to be filled.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Room for a manager's log, two checkpoints, images and containers, and for the reserve that it keeps free.
const BYTES: u64 = 768 << 20;
const FILLER: &str = "filler";
const CHUNK: usize = 1 << 20;

/// Mounted until it is dropped; nobody may use it then any more.
#[derive(Debug)]
pub struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounted on an empty directory, in a file beside it.
    pub fn mount(directory: &Path) -> anyhow::Result<Self> {
        let image = directory.with_extension("ext4");
        File::create(&image)?.set_len(BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-F"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(directory))?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.directory.join(FILLER))?;
        let chunk = vec![0; CHUNK];
        let mut size = CHUNK;
        while size > 0 {
            match file.write(&chunk[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error).context("filling a disk"),
            }
        }
        Ok(())
    }

    pub fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.directory.join(FILLER)).context("freeing a disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.directory)) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", text.trim());
    Ok(())
}
