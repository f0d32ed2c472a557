//! The files of the contexts. Each is replaced by rename, so that two commands at once leave a whole one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use swarm_pki::OperatorCredentials;

use super::{Entry, LOCAL, Remote, Target, socket};
use crate::failure::{Failure, Result};
use crate::parse::similar;

const CURRENT: &str = "current";
/// A context's files have a few KiB.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The folder of the contexts.
#[derive(Debug)]
pub struct Files(PathBuf);

impl Files {
    /// Where they are; nothing is made yet.
    ///
    /// # Errors
    /// There is no home.
    pub fn open() -> Result<Self> {
        let config = std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
        config
            .or_else(|| std::env::home_dir().map(|home| home.join(".config")))
            .map(|config| Self(config.join("swarmctl")))
            .ok_or_else(|| Failure::failed("neither HOME nor XDG_CONFIG_HOME is set").next("pass --host"))
    }

    /// In order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.0.join("contexts")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned())
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// The context that is used where none is asked for.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn current(&self) -> Result<Option<String>> {
        let name = read(&self.0.join(CURRENT))?.map(|text| text.trim().to_owned());
        Ok(name.filter(|name| !name.is_empty()))
    }

    /// `None`: none from now on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_current(&self, name: Option<&str>) -> Result<()> {
        self.write(Path::new(CURRENT), &format!("{}\n", name.unwrap_or_default()))
    }

    /// # Errors
    /// There is none of that name, or it cannot be read.
    pub fn entry(&self, name: &str) -> Result<Entry> {
        check_name(name)?;
        let path = self.path(name, "json");
        let Some(text) = read(&path)? else { return Err(self.missing(name)) };
        serde_json::from_str(&text).map_err(|error| unreadable(name, &path, &error.to_string()))
    }

    /// # Errors
    /// As [`Self::entry`].
    pub fn target(&self, name: &str) -> Result<Target> {
        match self.entry(name)? {
            Entry::Socket { endpoint } => socket(&endpoint).map(Target::Socket),
            Entry::Managers { managers } => {
                let credentials = self.credentials(name)?;
                Ok(Target::Managers(Remote { name: name.to_owned(), managers, credentials }))
            }
        }
    }

    /// # Errors
    /// They cannot be read.
    pub fn credentials(&self, name: &str) -> Result<OperatorCredentials> {
        let path = self.path(name, "pem");
        let text = read(&path)?.ok_or_else(|| unreadable(name, &path, "it does not exist"))?;
        OperatorCredentials::parse(&text).map_err(|error| unreadable(name, &path, &error.to_string()))
    }

    /// Writes what a context knows, the credentials first.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn save(&self, name: &str, managers: &[String], credentials: &OperatorCredentials) -> Result<()> {
        check_name(name)?;
        self.write(&Path::new("contexts").join(format!("{name}.pem")), &credentials.to_text())?;
        self.save_managers(name, managers)
    }

    /// # Errors
    /// The file cannot be written.
    pub fn save_managers(&self, name: &str, managers: &[String]) -> Result<()> {
        let entry = Entry::Managers { managers: managers.to_vec() };
        let text = serde_json::to_string(&entry).map_err(io::Error::from)?;
        self.write(&Path::new("contexts").join(format!("{name}.json")), &format!("{text}\n"))
    }

    /// # Errors
    /// There is none of that name, or its files cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let removed = fs::remove_file(self.path(name, "json"));
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing(name)),
            removed => removed?,
        }
        match fs::remove_file(self.path(name, "pem")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if self.current()?.as_deref() == Some(name) { self.set_current(None) } else { Ok(()) }
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.0.join("contexts").join(format!("{name}.{extension}"))
    }

    fn missing(&self, name: &str) -> Failure {
        let failure = Failure::failed(format!("there is no context {name:?}"));
        let known = self.names().unwrap_or_default();
        match similar(name, known.iter().map(String::as_str)) {
            _ if name == "dev" => failure.next("start a cluster on this machine: swarmd dev"),
            Some(meant) => failure.why(format!("did you mean {meant:?}?")).next("swarmctl context ls"),
            None if known.is_empty() => failure
                .next("swarmctl cluster operator-token (on a manager) prints the command that makes one"),
            None => failure.next("swarmctl context ls"),
        }
    }

    fn write(&self, name: &Path, text: &str) -> Result<()> {
        let path = self.0.join(name);
        let failed = |error: io::Error| {
            Failure::failed(format!("cannot write {}", path.display())).why(error.to_string())
        };
        let folder = path.parent().unwrap_or(&self.0);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let written = write_private(&new, text).and_then(|()| fs::rename(&new, &path));
        written.map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(error)
        })
    }
}

/// # Errors
/// It cannot be a file's name everywhere, or stands for something else.
pub fn check_name(name: &str) -> Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 63
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        && name != LOCAL;
    if valid {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} cannot be a context's name"))
        .why(format!("at most 63 letters, digits and -_; {LOCAL:?} is this machine's own daemon")))
}

fn read(path: &Path) -> Result<Option<String>> {
    let mut text = String::new();
    let read = fs::File::open(path)
        .and_then(|file| io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE_BYTES), &mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("cannot read {}", path.display())).why(error.to_string())),
    }
}

/// Newly made with its mode: a key is never readable by others, not even for a moment.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn unreadable(name: &str, path: &Path, why: &str) -> Failure {
    Failure::failed(format!("context {name:?} cannot be read"))
        .why(format!("{}: {why}", path.display()))
        .next(format!("swarmctl context rm {name}, and make it again with a new token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_everywhere() {
        for good in ["prod", "prod-eu_1", "A"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "default", "../prod", "a/b", "a b", "ä", "a.b", &long] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
