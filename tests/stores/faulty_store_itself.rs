//! The faulty store does what the tests that rest on it take for granted.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use crate::faulty_store::{FaultyStore, Mode, Seen};

/// A store in a directory of its own, which goes with it.
struct Bench {
    store: Option<FaultyStore>,
    dir: PathBuf,
}

impl Bench {
    fn new() -> Option<Bench> {
        let dir = std::env::temp_dir().join(format!("lkr-fuse-{}", uuid::Uuid::now_v7()));
        let store = FaultyStore::mount(&dir.join("real"), &dir.join("shown"));
        let bench = Bench { store, dir };
        bench.store.is_some().then_some(bench)
    }

    fn store(&self) -> &FaultyStore {
        self.store.as_ref().expect("mounted")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.store().path().join(path)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.store = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn it_is_a_file_system_like_any_other() {
    let Some(bench) = Bench::new() else { return };
    fs::create_dir_all(bench.at("a/b")).unwrap();
    fs::set_permissions(bench.at("a"), fs::Permissions::from_mode(0o2770)).unwrap();
    assert_eq!(fs::metadata(bench.at("a")).unwrap().mode() & 0o7777, 0o2770);

    let bytes: Vec<u8> = (0..700_001_u32).map(|n| (n % 251) as u8).collect();
    fs::write(bench.at("a/b/one"), &bytes).unwrap();
    assert_eq!(fs::read(bench.at("a/b/one")).unwrap(), bytes);
    assert_eq!(fs::read(bench.store().real().join("a/b/one")).unwrap(), bytes);

    // further names, moves and copies
    fs::hard_link(bench.at("a/b/one"), bench.at("two")).unwrap();
    assert_eq!(fs::metadata(bench.at("two")).unwrap().nlink(), 2);
    assert_eq!(
        fs::metadata(bench.at("two")).unwrap().ino(),
        fs::metadata(bench.at("a/b/one")).unwrap().ino()
    );
    fs::rename(bench.at("a/b"), bench.at("c")).unwrap();
    fs::copy(bench.at("c/one"), bench.at("three")).unwrap();
    assert_eq!(fs::read(bench.at("three")).unwrap(), bytes);
    std::os::unix::fs::symlink("three", bench.at("link")).unwrap();
    assert_eq!(fs::read(bench.at("link")).unwrap().len(), bytes.len());

    // an open file survives its name, grows at its end and shrinks
    let mut open = fs::OpenOptions::new().append(true).read(true).open(bench.at("three")).unwrap();
    open.write_all(b"more").unwrap();
    fs::remove_file(bench.at("three")).unwrap();
    open.set_len(4).unwrap();
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut left = Vec::new();
    open.read_to_end(&mut left).unwrap();
    assert_eq!(left, bytes[..4]);

    let mut names: Vec<String> = fs::read_dir(bench.store().path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "c", "link", "two"]);
    let missing = fs::read(bench.at("nothing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(rustix::fs::statvfs(bench.store().path()).unwrap().f_blocks > 0);
    fs::remove_dir_all(bench.at("c")).unwrap();
    assert!(File::create_new(bench.at("two")).is_err());
}

#[test]
fn held_calls_wait_until_they_are_let_go() {
    let Some(bench) = Bench::new() else { return };
    fs::write(bench.at("one"), b"1").unwrap();
    let open = File::open(bench.at("one")).unwrap();
    bench.store().set(Mode::Block);

    // more than the threads that serve the mount, of every kind
    let (tell, told) = mpsc::channel();
    let works: [fn(&Path, &File) -> bool; 5] = [
        |at, _| fs::metadata(at.join("one")).is_ok(),
        |_, mut open| open.read(&mut [0]).is_ok(),
        |at, _| fs::read_dir(at).is_ok(),
        |at, _| rustix::fs::statvfs(at).is_ok(),
        |at, _| fs::create_dir_all(at.join("new")).is_ok(),
    ];
    for &work in works.iter().cycle().take(20) {
        let (at, open, tell) =
            (bench.store().path().to_owned(), open.try_clone().unwrap(), tell.clone());
        std::thread::spawn(move || tell.send(work(&at, &open)));
    }
    while bench.store().held() < 3 {
        std::thread::yield_now();
    }
    assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "a held call answered");
    // a process is started although a file of the store is open here and held
    assert!(std::process::Command::new("true").status().unwrap().success());

    bench.store().set(Mode::Pass);
    for _ in 0..20 {
        assert!(told.recv().unwrap());
    }
    assert_eq!(bench.store().held(), 0);
}

#[test]
fn room_ends_at_the_byte_and_at_the_name() {
    let Some(bench) = Bench::new() else { return };
    bench.store().set(Mode::Full { bytes: 1000, names: 2 });
    let mut file = File::create(bench.at("one")).unwrap();
    let full = file.write_all(&[7; 4000]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(fs::metadata(bench.at("one")).unwrap().len(), 1000);
    fs::rename(bench.at("one"), bench.at("two")).unwrap();
    assert_eq!(
        fs::rename(bench.at("two"), bench.at("one")).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(rustix::fs::statvfs(bench.store().path()).unwrap().f_bavail, 0);
    // what needs no room goes on
    fs::remove_file(bench.at("two")).unwrap();
    bench.store().set(Mode::Pass);
    file.write_all(&[7; 4000]).unwrap();

    fs::write(bench.at("three"), b"3").unwrap();
    bench.store().set(Mode::ReadOnly);
    assert_eq!(
        fs::write(bench.at("four"), b"4").unwrap_err().kind(),
        ErrorKind::ReadOnlyFilesystem
    );
    assert_eq!(fs::read(bench.at("three")).unwrap(), b"3");
    bench.store().set(Mode::Broken);
    assert_eq!(fs::read(bench.at("three")).unwrap_err().raw_os_error(), Some(5));
    assert!(bench.store().hurt() >= 4);
}

#[test]
fn a_mount_that_vanished_leaves_an_empty_directory_and_comes_back() {
    let Some(bench) = Bench::new() else { return };
    fs::write(bench.at("one"), b"1").unwrap();
    bench.store().set(Mode::Block);
    let at = bench.at("one");
    let held = std::thread::spawn(move || fs::read(at));
    while bench.store().held() == 0 {
        std::thread::yield_now();
    }
    bench.store().vanish();
    assert!(held.join().unwrap().is_err(), "who waited is let go");
    assert_eq!(fs::read_dir(bench.store().path()).unwrap().count(), 0);
    bench.store().set(Mode::Pass);
    bench.store().come_back();
    assert_eq!(fs::read(bench.at("one")).unwrap(), b"1");
}

#[test]
fn it_knows_what_a_power_cut_could_take() {
    let Some(bench) = Bench::new() else { return };
    let (store, place) = (bench.store(), Path::new("a/clip"));
    fs::create_dir(bench.at("a")).unwrap();
    let mut draft = File::create(bench.at("draft")).unwrap();
    draft.write_all(b"bytes").unwrap();
    fs::rename(bench.at("draft"), bench.at("a/clip")).unwrap();
    assert_eq!(store.at_risk(place), Some("its bytes are not synced"));
    draft.sync_all().unwrap();
    assert_eq!(store.at_risk(place), Some("its name is not synced"));
    File::open(bench.at("a")).unwrap().sync_all().unwrap();
    assert_eq!(store.at_risk(place), Some("a directory above it has a name that is not synced"));
    File::open(store.path()).unwrap().sync_all().unwrap();
    assert_eq!(store.at_risk(place), None);
    assert_eq!(store.syncs_of(place), 1);
    let moved = Seen::Renamed { from: "draft".into(), to: "a/clip".into() };
    assert!(store.journal().contains(&moved));
    draft.write_all(b"more").unwrap();
    assert_eq!(store.at_risk(place), Some("its bytes are not synced"));
}
