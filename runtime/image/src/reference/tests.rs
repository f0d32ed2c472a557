//! The grammar, by example.

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[track_caller]
fn check(text: &str, canonical: &str, familiar: &str) {
    let reference: Reference = text.parse().unwrap();
    assert_eq!(reference.to_string(), canonical);
    assert_eq!(reference.familiar(), familiar);
    assert_eq!(canonical.parse::<Reference>().unwrap(), reference, "canonical form is stable");
    assert_eq!(familiar.parse::<Reference>().unwrap(), reference, "familiar form means the same");
}

#[test]
fn names_are_normalised() {
    check("nginx", "docker.io/library/nginx:latest", "nginx:latest");
    check("shop/web:1.4", "docker.io/shop/web:1.4", "shop/web:1.4");
    check("docker.io/nginx:1", "docker.io/library/nginx:1", "nginx:1");
    check("index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest");
    check("ghcr.io/a/b_c/d-e.f:v1", "ghcr.io/a/b_c/d-e.f:v1", "ghcr.io/a/b_c/d-e.f:v1");
    check("localhost/x", "localhost/x:latest", "localhost/x:latest");
    check("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y");
    check("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest");
    check("REGISTRY/x", "REGISTRY/x:latest", "REGISTRY/x:latest");
    check("a__b---c", "docker.io/library/a__b---c:latest", "a__b---c:latest");
}

#[test]
fn a_digest_pins_and_keeps_the_tag_that_was_given() {
    let pinned = format!("nginx@sha256:{HEX}");
    check(&pinned, &format!("docker.io/library/{pinned}"), &pinned);
    let both = format!("localhost:5000/a/b:1@sha256:{HEX}");
    check(&both, &both, &both);
    let reference: Reference = both.parse().unwrap();
    assert_eq!(reference.without_digest().unwrap().to_string(), "localhost:5000/a/b:1");
    assert_eq!(pinned.parse::<Reference>().unwrap().without_digest(), None);
}

#[track_caller]
fn refused(text: &str, names: &str) {
    let error = text.parse::<Reference>().unwrap_err().to_string();
    assert!(error.contains(names), "{error}");
}

#[test]
fn errors_name_the_offending_part() {
    refused("", "cannot be empty");
    refused("Nginx", "component \"Nginx\"");
    refused("a//b", "component \"\"");
    refused("a/_b", "component \"_b\"");
    refused("a/b..c", "component \"b..c\"");
    refused("a/b___c", "component \"b___c\"");
    refused("a/../b", "component \"..\"");
    refused("shop/w\u{e9}b", "component \"w\u{e9}b\"");
    refused("nginx:", "tag \"\"");
    refused("nginx:.1", "tag \".1\"");
    refused("nginx:a b", "tag \"a b\"");
    refused("nginx@sha256:12", "not a digest");
    refused("nginx@sha512:12", "not a digest");
    refused("host.:5000/x", "\"host.:5000\" is not a registry host");
    refused("a.b:99999/x", "\"a.b:99999\" is not a registry host");
    refused("[::1/x", "\"[::1\" is not a registry host");
    refused("-a.b/x", "is not a registry host");
    refused("https://ghcr.io/x", "is not a registry host");
    refused(HEX, "64 hexadecimal digits");
}

#[test]
fn lengths_are_bounded() {
    let tag = "t".repeat(MAX_TAG_BYTES);
    assert!(format!("a:{tag}").parse::<Reference>().is_ok());
    refused(&format!("a:{tag}t"), "tag");
    let repository = "r".repeat(MAX_NAME_BYTES - "a.io/".len());
    assert!(format!("a.io/{repository}").parse::<Reference>().is_ok());
    refused(&format!("a.io/{repository}r"), "the name has 256 bytes");
    refused(&"x".repeat(100_000), "at most");
}
