//! What every container is given: its command, environment, user, directory, names and mounts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use swarm_runtime::{ContainerSpec, Mount, Signal};

use crate::support::{Host, make_layer, wait};

#[test]
fn output_and_exit_code_are_kept() {
    let host = Host::new();
    let run = host.run(host.shell("code", "echo out; echo err >&2; exit 7"));
    assert_eq!((run.exit.code, run.exit.signal, run.exit.oom), (7, None, false));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn the_process_is_what_was_asked_for() {
    let host = Host::new();
    let script = "id -u; id -g; id -G; pwd; hostname; env; echo $0 $1";
    let mut spec = host.shell("asked", script);
    spec.args.extend(["zero", "one two"].map(str::to_owned));
    spec.user = "web".to_owned();
    spec.additional_groups = vec!["7".to_owned()];
    spec.cwd = "/made/for it".to_owned();
    spec.hostname = "web-1".to_owned();
    spec.env = ["B=2", "A=x=y", "EMPTY=", "B=3"].map(str::to_owned).to_vec();
    let run = host.run(spec);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[..5], ["33", "44", "44 4 7", "/made/for it", "web-1"], "{run:?}");
    for line in ["A=x=y", "B=3", "EMPTY=", "HOME=/var/www", "zero one two"] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")));
    // SHLVL and PWD are the shell's own.
    assert_eq!(lines.len(), 5 + 8, "{lines:?}");
}

#[test]
fn a_missing_command_is_named() {
    let host = Host::new();
    let start = |command: &str| {
        let mut spec = ContainerSpec::new("missing", [command]);
        spec.layers = vec![host.layer()];
        host.refused(spec)
    };
    let text = start("nginx");
    assert!(text.contains("command not found: \"nginx\" is in no directory of the image's PATH"));
    assert!(start("/usr/bin/nginx").contains("\"/usr/bin/nginx\" does not exist in the image"));
    assert!(start("/etc").contains("cannot execute \"/etc\""));

    fs::write(host.layer().join("bin/script"), "#!/no/such/interpreter\n").unwrap();
    let script = host.layer().join("bin/script");
    assert!(start("script").contains("cannot execute \"script\": /bin/script is a directory or"));
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(start("script").contains("the interpreter or loader that it names does not"));
    fs::write(&script, "echo no line with #!\n").unwrap();
    assert!(start("script").contains("not a program for this machine"));
}

#[test]
fn a_bad_user_is_named() {
    let host = Host::new();
    for user in ["nobody", "-1", "0x0", "2147483648", "18446744073709551616", "web:nogroup"] {
        let mut spec = host.shell("user", "true");
        spec.user = user.to_owned();
        let text = host.refused(spec);
        assert!(text.contains(&format!("user {user:?}: ")), "{text}");
    }
}

#[test]
fn a_bad_specification_is_refused_before_anything_is_made() {
    let host = Host::new();
    let check = |change: &dyn Fn(&mut ContainerSpec), expect: &str| {
        let mut spec = host.shell("bad", "true");
        change(&mut spec);
        let text = host.refused(spec);
        assert!(text.contains(expect), "{text}");
    };
    check(&|spec| spec.args.clear(), "args: no command given");
    check(&|spec| spec.cwd = "work".into(), "cwd: \"work\" is not an absolute path");
    check(&|spec| spec.env.push("=x".into()), "env: \"=x\" is not NAME=value");
    check(&|spec| spec.cap_add.push("MAGIC".into()), "cap_add: \"MAGIC\" is not a capability");
    check(
        &|spec| drop(spec.sysctls.insert("kernel.core_pattern".into(), "x".into())),
        "sysctls: \"kernel.core_pattern\" is not isolated",
    );
    check(
        &|spec| drop(spec.sysctls.insert("net.core.somaxconn".into(), "1".into())),
        "would change the host's network",
    );
    for target in ["/proc", "/sys/fs", "/dev", "/", "/a/../proc", "relative"] {
        let mount = Mount::Tmpfs { target: target.into(), size_bytes: 0 };
        check(&|spec| spec.mounts.push(mount.clone()), "mounts: ");
    }
    check(&|spec| spec.resources.pids = Some(0), "resources: a limit of processes is at least 4");
}

#[test]
fn a_name_is_taken_until_its_container_is_removed() {
    let host = Host::new();
    let container = host.runtime.start(host.shell("taken", "true")).unwrap();
    let error = host.runtime.start(host.shell("taken", "true")).unwrap_err();
    assert_eq!(error.to_string(), "container taken exists already; remove it first");
    wait(&container);
    host.runtime.remove("taken").unwrap();
    host.runtime.remove("taken").unwrap();
    host.run(host.shell("taken", "true"));
}

#[test]
fn layers_lie_over_each_other_and_are_never_written() {
    let host = Host::new();
    let mut spec = host.shell("layers", "cat /which; ls /only*; echo changed > /which; echo new > /bin/new");
    for number in 0..120 {
        let layer = host.home.path().join(format!("{}-{number}", "long".repeat(50)));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("which"), format!("{number}\n")).unwrap();
        fs::write(layer.join(format!("only-{number}")), "").unwrap();
        spec.layers.push(layer);
    }
    let top = spec.layers.last().unwrap().clone();
    let run = host.run(spec);
    assert_eq!(run.stdout.lines().next(), Some("119"), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 121);
    assert_eq!(fs::read_to_string(top.join("which")).unwrap(), "119\n");
    assert!(!host.layer().join("bin/new").exists());
}

#[test]
fn mounts_appear_where_they_were_asked_for() {
    let host = Host::new();
    let volume = host.home.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("given"), "from the host\n").unwrap();
    let script = "cat /data/given; echo kept > /data/written; echo x > /fixed/given || echo refused; \
                  echo y > /file && cat /file; dd if=/dev/zero of=/scratch/big bs=1M count=3 2>/dev/null || echo full; \
                  cat /etc/hosts /etc/resolv.conf /etc/hostname";
    let mut spec = host.shell("mounts", script);
    let bind = |source: &std::path::Path, target: &str, readonly| Mount::Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        readonly,
    };
    fs::write(host.home.path().join("single"), "single\n").unwrap();
    spec.mounts = vec![
        bind(&volume, "/data", false),
        bind(&volume, "/fixed", true),
        bind(&host.home.path().join("single"), "/file", false),
        Mount::Tmpfs { target: "/scratch".into(), size_bytes: 2 << 20 },
    ];
    spec.etc_files.hosts = Some("127.0.0.1 localhost\n".into());
    spec.etc_files.resolv_conf = Some("nameserver 127.0.0.11\n".into());
    spec.etc_files.hostname = Some("web\n".into());
    let run = host.run(spec);
    let expect = "from the host\nrefused\ny\nfull\n127.0.0.1 localhost\nnameserver 127.0.0.11\nweb\n";
    assert_eq!(run.stdout, expect, "{run:?}");
    assert_eq!(fs::read_to_string(volume.join("written")).unwrap(), "kept\n");
}

#[test]
fn a_missing_mount_source_is_named() {
    let host = Host::new();
    let mut spec = host.shell("source", "true");
    spec.mounts.push(Mount::Bind {
        source: "/no/such/volume".into(),
        target: "/data".into(),
        readonly: false,
    });
    let text = host.refused(spec);
    assert!(text.contains("mount on \"/data\": its source /no/such/volume does not exist"), "{text}");
}

#[test]
fn signals_reach_the_first_process() {
    let host = Host::new();
    let script = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let container = host.runtime.start(host.shell("signal", script)).unwrap();
    host.wait_for_line("signal", "ready");
    container.signal(Signal::TERM).unwrap();
    let run = host.finish(&container);
    assert_eq!((run.exit.code, run.stdout.as_str()), (3, "ready\nterm\n"));
    let error = container.signal(Signal::TERM).unwrap_err();
    assert_eq!(error.to_string(), "container signal is not running");
    host.runtime.remove("signal").unwrap();
}

#[test]
fn a_reaper_passes_signals_on_and_collects_orphans() {
    let host = Host::new();
    // Without a reaper, the shell would be process 1 and keep the default action from it.
    let script = "echo pid $$; (sleep 0.01 &); sleep 0.2; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l; cat /proc/1/comm; readlink /proc/1/exe || echo hidden; cat /proc/1/maps 2>/dev/null | wc -c; echo ready; exec sleep 600";
    let mut spec = host.shell("init", script);
    spec.init = true;
    let container = host.runtime.start(spec).unwrap();
    host.wait_for_line("init", "ready");
    container.signal(Signal::TERM).unwrap();
    let run = host.finish(&container);
    assert_eq!(run.stdout, "pid 2\n0\ninit\nhidden\n0\nready\n", "{run:?}");
    assert_eq!(run.exit.code, 128 + 15, "{run:?}");
    host.runtime.remove("init").unwrap();

    let mut spec = host.shell("missing", "true");
    spec.args = vec!["nginx".to_owned()];
    spec.init = true;
    assert!(host.refused(spec).contains("command not found: \"nginx\""));
    let mut spec = host.shell("code", "exit 9");
    spec.init = true;
    assert_eq!(host.run(spec).exit.code, 9);
}

#[test]
fn a_killed_container_reports_the_signal() {
    let host = Host::new();
    let container = host.runtime.start(host.shell("killed", "sleep 600 & sleep 600")).unwrap();
    assert!(container.exit_status().unwrap().is_none());
    container.kill().unwrap();
    let run = host.finish(&container);
    assert_eq!((run.exit.code, run.exit.signal), (137, Some(9)));
    host.runtime.remove("killed").unwrap();
}

#[test]
fn a_running_container_can_be_removed() {
    let host = Host::new();
    let container = host.runtime.start(host.shell("running", "sleep 600")).unwrap();
    host.runtime.remove("running").unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{}", container.init_pid())).exists());
}

#[test]
fn an_empty_image_says_that_it_has_no_command() {
    let host = Host::new();
    let text = host.refused(ContainerSpec::new("empty", ["/hello"]));
    assert!(text.contains("\"/hello\" does not exist in the image"), "{text}");
    let other = host.home.path().join("other");
    make_layer(&other);
    let mut spec = ContainerSpec::new("whole", ["true"]);
    spec.layers = vec![other];
    assert_eq!(host.run(spec).exit.code, 0);
}
