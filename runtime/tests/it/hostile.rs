//! Images and specifications that try to reach the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use swarm_runtime::{ContainerSpec, Mount};

use crate::support::{Host, make_layer};

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// An image with one path replaced by a link.
fn image_with_link(host: &Host, path: &str, target: &str) -> PathBuf {
    let layer = host.home.path().join("hostile");
    let _ = fs::remove_dir_all(&layer);
    make_layer(&layer);
    let link = layer.join(path);
    let _ = fs::remove_dir_all(&link);
    let _ = fs::remove_file(&link);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(target, link).unwrap();
    layer
}

fn canary(host: &Host) -> PathBuf {
    let canary = host.home.path().join("canary");
    let _ = fs::remove_dir_all(&canary);
    fs::create_dir(&canary).unwrap();
    canary
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn an_image_that_redirects_a_kernel_directory_is_refused() {
    let host = Host::new();
    let canary = canary(&host);
    let before = fs::read_to_string(CORE_PATTERN).unwrap();
    for name in ["dev", "proc", "sys"] {
        let mut spec = host.shell("redirect", "true");
        spec.layers = vec![image_with_link(&host, name, canary.to_str().unwrap())];
        let text = host.refused(spec);
        assert!(text.contains(&format!("/{name} is a symbolic link")), "{text}");
        assert!(is_empty(&canary));
    }
    let mut spec = host.shell("file", "true");
    let layer = host.home.path().join("hostile");
    fs::remove_dir_all(&layer).unwrap();
    make_layer(&layer);
    fs::write(layer.join("dev"), "").unwrap();
    spec.layers = vec![layer];
    assert!(host.refused(spec).contains("/dev is not a directory"));
    assert_eq!(fs::read_to_string(CORE_PATTERN).unwrap(), before);
}

#[test]
fn links_in_dev_are_hidden() {
    let host = Host::new();
    let before = fs::read_to_string(CORE_PATTERN).unwrap();
    for name in ["dev/null", "dev/console", "dev/pts/0", "dev/ptmx", "dev/shm", "dev/mqueue"] {
        let mut spec = host.shell("dev", "echo x > /dev/null; stat -c %t,%T /dev/null");
        spec.layers = vec![image_with_link(&host, name, CORE_PATTERN)];
        let run = host.run(spec);
        assert_eq!((run.exit.code, run.stdout.as_str()), (0, "1,3\n"), "{name}: {run:?}");
    }
    assert_eq!(fs::read_to_string(CORE_PATTERN).unwrap(), before);
}

#[test]
fn etc_as_a_link_stays_inside() {
    let host = Host::new();
    let canary = canary(&host);
    let spec = |target: &str| {
        let mut spec = host.shell("etc", "cat /etc/hosts");
        spec.layers = vec![image_with_link(&host, "etc", target)];
        spec.etc_files.hosts = Some("inside\n".to_owned());
        spec
    };
    let text = host.refused(spec(canary.to_str().unwrap()));
    assert!(text.contains("/etc/hosts"), "{text}");
    assert!(is_empty(&canary));
    let run = host.run(spec("/../../tmp"));
    assert_eq!(run.stdout, "inside\n", "{run:?}");
}

#[test]
fn users_are_not_read_from_the_host() {
    let host = Host::new();
    fs::write(host.home.path().join("secret"), "daemon:x:5:5::/:\n").unwrap();
    let secret = host.home.path().join("secret");
    let mut spec = host.shell("passwd", "id -u");
    spec.layers = vec![image_with_link(&host, "etc/passwd", secret.to_str().unwrap())];
    spec.user = "daemon".to_owned();
    assert!(host.refused(spec).contains("has no user \"daemon\""));
    let layer = host.home.path().join("hostile");
    fs::remove_file(layer.join("etc/passwd")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        layer.join("etc/passwd"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let mut spec = host.shell("fifo", "id -u");
    spec.layers = vec![layer];
    assert!(host.refused(spec).contains("/etc/passwd of the image is not a regular file"));
}

#[test]
fn a_working_directory_never_leads_outside() {
    let host = Host::new();
    for number in 3..20 {
        let mut spec = host.shell("cwd", "pwd; ls ../../..");
        spec.cwd = format!("/proc/self/fd/{number}");
        let text = host.refused(spec);
        assert!(text.contains("working directory \"/proc/self/fd/"), "{text}");
        let mut spec = host.shell("cwd-link", "pwd");
        spec.layers = vec![image_with_link(&host, "work", &format!("/proc/self/fd/{number}"))];
        spec.cwd = "/work".to_owned();
        let text = host.refused(spec);
        assert!(text.contains("working directory \"/work\""), "{text}");
    }
    let mut spec = host.shell("dots", "pwd");
    spec.cwd = "/../../..//tmp/./x/".to_owned();
    assert_eq!(host.run(spec).stdout, "/tmp/x\n");
    let mut spec = host.shell("link", "pwd");
    spec.layers = vec![image_with_link(&host, "work", "/../../../tmp")];
    spec.cwd = "/work".to_owned();
    assert_eq!(host.run(spec).stdout, "/tmp\n");
}

#[test]
fn a_mount_target_never_leads_outside() {
    let host = Host::new();
    let canary = canary(&host);
    let volume = host.home.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    let target = format!("/data{}", canary.display());
    let layer = image_with_link(&host, "data", "../../../../../../../../..");
    let mut spec = host.shell("target", &format!("cat {}/sub/file", canary.display()));
    spec.layers = vec![layer];
    spec.mounts = vec![Mount::Bind { source: volume, target: format!("{target}/sub"), readonly: false }];
    let run = host.run(spec);
    assert_eq!(run.stdout, "volume\n", "{run:?}");
    assert!(is_empty(&canary));
}

#[test]
fn the_runtimes_own_program_cannot_be_reached() {
    let host = Host::new();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_swarm-shim"));
    let before = fs::read(&program).unwrap();
    let mut spec = ContainerSpec::new("self", ["/proc/self/exe", "sh", "-c", "echo reached"]);
    spec.layers = vec![host.layer()];
    match host.runtime.start(spec) {
        Err(error) => assert!(error.to_string().contains("/proc/self/exe"), "{error}"),
        Ok(container) => {
            let run = host.finish(&container);
            assert!(!run.stdout.contains("reached"), "{run:?}");
            host.runtime.remove("self").unwrap();
        }
    }
    assert!(before == fs::read(&program).unwrap(), "the shim's program was changed");
}

#[test]
fn deep_and_strange_files_are_removed_and_links_are_not_followed() {
    let host = Host::new();
    let canary = canary(&host);
    fs::write(canary.join("file"), "kept").unwrap();
    let script = "i=0; cd /tmp; while [ $i -lt 1500 ]; do mkdir -p d removing 0; touch removing/x 0/x; cd d; i=$((i+1)); done; \
                  ln -s $CANARY /link; ln -s $CANARY /tmp/removing/link; mknod /tmp/p p";
    let mut spec = host.shell("deep", script);
    spec.env.push(format!("CANARY={}", canary.display()));
    let run = host.run(spec);
    assert_eq!(run.exit.code, 0, "{run:?}");
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "kept");
}
