//! Runs real servers: what counts here is what is left when a process dies.

mod support;

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use super::pid_file::program_of;
use super::*;
use support::{HeldServer, TestDir, kill, psql, server_pid, wait_until};

#[test]
fn data_survive_a_restart() {
    let dir = TestDir::new();
    let server = PrivatePostgres::start(&dir.durable()).unwrap();
    psql(server.url(), "CREATE TABLE t AS SELECT 42 AS x");
    server.stop();
    assert!(!dir.0.join("postgres/postmaster.pid").exists());

    let server = PrivatePostgres::start(&dir.durable()).unwrap();

    assert_eq!(psql(server.url(), "SELECT x FROM t"), "42");
    assert_eq!(running_url(&dir.0).unwrap().as_deref(), Some(server.url()));
    server.stop();
    assert_eq!(running_url(&dir.0).unwrap(), None);
}

#[test]
fn settings_are_as_promised() {
    let dir = TestDir::new();
    let show = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name COLLATE \"C\") \
                FROM pg_settings WHERE name IN \
                ('fsync', 'listen_addresses', 'max_connections', 'server_encoding', 'TimeZone')";

    let server = PrivatePostgres::start(&dir.durable()).unwrap();

    let settings = psql(server.url(), show);
    let expected = "TimeZone=UTC fsync=on listen_addresses= max_connections=200 server_encoding=UTF8";
    assert_eq!(settings, expected);
    assert_eq!(psql(server.url(), "SELECT datcollate FROM pg_database WHERE datname = current_database()"), "C");
    let mode = |name| fs::metadata(dir.0.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("socket"), mode("postgres"), mode("postgres.log")), (0o700, 0o700, 0o600));
}

#[test]
fn second_start_in_the_same_folder_is_refused_at_once() {
    let dir = TestDir::new();
    let server = PrivatePostgres::start(&dir.durable()).unwrap();
    let began = Instant::now();

    let error = PrivatePostgres::start(&dir.durable()).unwrap_err();

    assert!(matches!(&error, Error::AlreadyRunning { pid, .. } if *pid == std::process::id()), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(psql(server.url(), "SELECT 1"), "1");
}

#[test]
fn server_of_a_killed_process_stops_and_the_next_start_works_at_once() {
    let dir = TestDir::new();
    let mut owner = HeldServer::start(&dir.0, Keep::Durable);
    psql(&owner.url, "CREATE TABLE t AS SELECT 42 AS x");

    owner.kill();
    let server = PrivatePostgres::start(&dir.durable()).unwrap();

    assert_ne!(server_pid(&dir.0), Some(owner.server_pid));
    assert_eq!(program_of(owner.server_pid), None);
    assert_eq!(psql(server.url(), "SELECT x FROM t"), "42");
}

#[test]
fn throwaway_folder_of_a_killed_process_goes() {
    // Only the name: the folder itself is gone at the end of the line.
    let folder = TestDir::new().0.clone();
    let mut owner = HeldServer::start(&folder, Keep::Throwaway);

    owner.kill();

    wait_until("the folder is gone", || !folder.exists());
    assert_eq!(program_of(owner.server_pid), None);
}

#[test]
fn throwaway_folder_goes_with_the_server_and_must_be_new() {
    let dir = TestDir::new();
    let settings = Settings { data_dir: dir.0.join("throwaway"), keep: Keep::Throwaway };

    let server = PrivatePostgres::start(&settings).unwrap();
    assert_eq!(psql(server.url(), "SHOW fsync"), "off");
    server.stop();
    assert!(!settings.data_dir.exists());

    fs::create_dir(&settings.data_dir).unwrap();
    fs::write(settings.data_dir.join("file"), "of somebody else").unwrap();
    assert!(PrivatePostgres::start(&settings).is_err());
    assert!(settings.data_dir.join("file").exists());
}

#[test]
fn crashed_server_is_taken_over() {
    let dir = TestDir::new();
    let owner = HeldServer::start(&dir.0, Keep::Durable);
    psql(&owner.url, "CREATE TABLE t AS SELECT 42 AS x");
    kill(owner.server_pid);
    wait_until("the server is gone", || program_of(owner.server_pid).is_none());
    assert!(dir.0.join("postgres/postmaster.pid").exists());
    assert_eq!(running_url(&dir.0).unwrap(), None);
    drop(owner);
    // As after a restart of the machine or container: the process id is another program's now.
    let path = dir.0.join("postgres/postmaster.pid");
    let stale = fs::read_to_string(&path).unwrap();
    let (_, rest) = stale.split_once('\n').unwrap();
    fs::write(&path, format!("{}\n{rest}", std::process::id())).unwrap();

    let server = PrivatePostgres::start(&dir.durable()).unwrap();

    assert_eq!(psql(server.url(), "SELECT x FROM t"), "42");
}

#[test]
fn interrupted_initdb_leaves_nothing_that_hinders() {
    let dir = TestDir::new();
    let new = dir.0.join("postgres.new");
    let mut owner = HeldServer::spawn(&dir.0, Keep::Durable);
    wait_until("initdb is at work", || new.join("base").exists());

    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(!dir.0.join("postgres").exists());
    fs::create_dir_all(new.join("half")).unwrap();
    let server = PrivatePostgres::start(&dir.durable()).unwrap();

    assert_eq!(psql(server.url(), "SELECT 1"), "1");
    assert!(!new.exists());
}

#[test]
fn folders_whose_path_is_no_socket_path_work() {
    let dir = TestDir::new();
    for name in ["l".repeat(120), "a, b\" 'ü".to_owned(), "per%cent and space".to_owned()] {
        let data_dir = dir.0.join(name);

        let server = PrivatePostgres::start(&Settings { data_dir: data_dir.clone(), keep: Keep::Durable }).unwrap();

        assert_eq!(psql(server.url(), "SELECT 1"), "1");
        assert_eq!(running_url(&data_dir).unwrap().as_deref(), Some(server.url()));
        let socket_dir = PidFile::read(&data_dir.join("postgres")).unwrap().unwrap().socket_dir;
        assert_eq!(fs::metadata(&socket_dir).unwrap().permissions().mode() & 0o777, 0o700);
        server.stop();
        assert!(socket_dir.starts_with(&data_dir) || !socket_dir.exists());
    }
}

#[test]
fn data_of_a_version_that_is_not_installed_are_refused() {
    let dir = TestDir::new();
    fs::create_dir_all(dir.0.join("postgres")).unwrap();
    fs::write(dir.0.join("postgres/PG_VERSION"), "9\n").unwrap();

    let error = PrivatePostgres::start(&dir.durable()).unwrap_err();

    let Error::OtherVersion { cluster, installed, .. } = &error else { panic!("{error}") };
    assert_eq!(cluster, "9");
    assert!(installed.contains("/bin"), "{installed}");
}

#[test]
fn failing_server_is_quoted() {
    let dir = TestDir::new();
    PrivatePostgres::start(&dir.durable()).unwrap().stop();
    let conf = dir.0.join("postgres/postgresql.conf");
    fs::write(&conf, fs::read_to_string(&conf).unwrap() + "\nno_such_setting = 1\n").unwrap();

    let error = PrivatePostgres::start(&dir.durable()).unwrap_err();

    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn folder_that_the_server_may_not_reach_is_named() {
    if !Uid::effective().is_root() {
        return; // Only root runs the server as somebody else.
    }
    let dir = TestDir::new();
    let closed = dir.0.join("closed");
    DirBuilder::new().mode(0o700).create(&closed).unwrap();

    let error = PrivatePostgres::start(&Settings { data_dir: closed.join("data"), keep: Keep::Durable }).unwrap_err();

    assert!(matches!(&error, Error::Unreachable { parent, .. } if *parent == closed), "{error}");
}

#[test]
fn url_escapes_the_folder() {
    assert_eq!(url(Path::new("/a b/ü%")), "postgres:///postgres?host=%2Fa%20b%2F%C3%BC%25&port=5432&user=ridgeline");
}
