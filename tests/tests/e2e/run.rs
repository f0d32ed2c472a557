//! `swarmctl run` and logs.

use swarm_tests::e2e::{Cluster, busybox_image, eventually};

#[test]
fn run_passes_output_and_exit_code_on() {
    let cluster = Cluster::start(2);
    let path = busybox_image("busybox:1").write(cluster.directory());
    cluster.ctl_ok(&["image", "load", "-i", &path.display().to_string()]);

    let output = cluster.ctl(&["run", "busybox:1", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "out\n"), "{output:?}");
    assert!(output.stderr.contains("err"), "{output:?}");
    assert_eq!(cluster.ctl(&["run", "busybox:1", "true"]).code, 0);
    let settings = ["run", "-e", "A=b c", "-w", "/bin", "-u", "web", "--hostname", "h1", "busybox:1"];
    let output = cluster.ctl(&[&settings[..], &["sh", "-c", "echo $A; pwd; id -u; hostname"]].concat());
    assert_eq!(output.stdout, "b c\n/bin\n1000\nh1\n", "{output:?}");
    let missing = cluster.ctl(&["run", "busybox:1", "/nope"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("/nope"), "{missing:?}");
    assert_eq!(cluster.ctl_ok(&["service", "ls", "-q"]), "", "run leaves no service");

    cluster.ctl_ok(&[
        "service",
        "create",
        "--name",
        "say",
        "--replicas",
        "2",
        "busybox:1",
        "sh",
        "-c",
        "echo one; echo two; sleep 1000",
    ]);
    eventually("the logs of both tasks are there", || {
        let logs = cluster.ctl_ok(&["service", "logs", "--raw", "say"]);
        if logs.matches("one").count() == 2 && logs.matches("two").count() == 2 { Ok(()) } else { Err(logs) }
    });
    let last = cluster.ctl_ok(&["service", "logs", "--raw", "-n", "1", "say"]);
    assert_eq!(last, "two\ntwo\n");
    assert!(cluster.ctl_ok(&["service", "logs", "say.1"]).contains("say.1."));
    cluster.ctl_fails(&["service", "logs", "sya"], 1, "sya");
    cluster.finish();
}
