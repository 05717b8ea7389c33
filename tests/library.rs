//! Code in a library that another program has loaded: what a new image of that program would not have. It runs under
//! `StartMethod::Fork`, and is refused otherwise with an error that says so.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::LONG_LIMIT;
use common::alone::Application;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

const WORKSPACE: &str = "[workspace]\nmembers = [\"loaded\", \"host\"]\nresolver = \"3\"\n";

const LOADED: &str = r#"
[package]
name = "loaded"
version = "0.0.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
multiprocess = { path = "MULTIPROCESS" }
"#;

const CHECK: &str = r#"
use multiprocess::{Pool, Process, StartMethod, scope};

#[unsafe(no_mangle)]
pub extern "C" fn check() {
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let process = Process::builder().start_method(method).spawn(20, |n: i32| n + 1);
        let error = process.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("StartMethod::Fork"), "{error}");
        let pool = Pool::builder().workers(1).start_method(method).build();
        let error = pool.and_then(|pool| Ok(pool.apply(20, |n: i32| n + 1)?)).unwrap_err().to_string();
        assert!(error.contains("StartMethod::Fork"), "{error}");
    }
    let by_fork = || Process::builder().start_method(StartMethod::Fork);
    assert_eq!(by_fork().spawn(20, |n: i32| n + 1).unwrap().join().unwrap(), 21);
    let exits = by_fork().spawn((), |()| if true { std::process::exit(3) } else { 1 });
    assert_eq!(exits.unwrap().join().unwrap_err().exit_status().unwrap().code(), Some(3));
    let base = 7;
    let sum = scope(|s| s.spawn(|| base + 1).join());
    assert_eq!(sum.unwrap().unwrap(), 8);
    // A pool's functions travel later than its workers start.
    let pool = Pool::builder().workers(1).start_method(StartMethod::Fork).build();
    let error = pool.and_then(|pool| Ok(pool.apply(20, |n: i32| n + 1)?)).unwrap_err().to_string();
    assert!(error.contains("StartMethod::Fork"), "{error}");
    println!("all is well");
}
"#;

const HOST: &str = r#"
use std::ffi::{CString, c_char, c_int, c_void};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn main() {
    let path = CString::new(std::env::args().nth(1).unwrap()).unwrap();
    // SAFETY: both are texts that end in a null byte; the library has this function.
    unsafe {
        let library = dlopen(path.as_ptr(), 2);
        assert!(!library.is_null());
        let check = dlsym(library, c"check".as_ptr());
        assert!(!check.is_null());
        let check: extern "C" fn() = std::mem::transmute(check);
        check();
    }
}
"#;

#[test]
fn code_of_a_loaded_library_runs_by_fork_and_is_refused_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("Cargo.toml", WORKSPACE);
    let loaded = LOADED.replace("MULTIPROCESS", ours.to_str().unwrap());
    write("loaded/Cargo.toml", &loaded);
    write("loaded/src/lib.rs", CHECK);
    write(
        "host/Cargo.toml",
        "[package]\nname = \"host\"\nversion = \"0.0.0\"\nedition = \"2024\"\n",
    );
    write("host/src/main.rs", HOST);
    // The versions that are here already: the build is offline.
    fs::copy(ours.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    let target = folder.path().join("target");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = cargo
        .args(["build", "--offline"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let programs = target.join("debug");
    let mut host = Command::new(programs.join("host"));
    host.arg(programs.join("libloaded.so"));
    let ended = Application::with(host, "host").start().wait(LONG_LIMIT);
    assert!(
        ended.status.success() && ended.stdout.contains("all is well"),
        "{ended:?}"
    );
    ended.assert_nothing_left();
}
