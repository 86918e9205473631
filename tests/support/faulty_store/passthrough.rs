//! The file system behind a faulty store: every call is made on the real directory, if the mode of the moment lets it.
//! Files are known by their real numbers; a handle to each that the kernel knows is kept, so that renames and further
//! names change nothing.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, Timestamps, Uid},
    io::Errno as Sys,
};

use super::control::{Call, Control};

/// Nothing is remembered by the kernel.
const AT_ONCE: Duration = Duration::ZERO;
/// Not by files either; and closing asks nothing.
const HOW: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_NOFLUSH);

pub struct Passthrough {
    real: PathBuf,
    control: Arc<Control>,
    nodes: Mutex<HashMap<u64, Node>>,
    open: Mutex<HashMap<u64, Arc<Opened>>>,
    next: AtomicU64,
}

struct Node {
    handle: Arc<File>,
    lookups: u64,
}

enum Opened {
    File(File),
    Directory(File, Vec<(u64, FileType, OsString)>),
}

type Answer<T> = Result<T, Errno>;

fn sys(error: Sys) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// Where an open file is found again, to be opened anew or changed.
fn by_handle(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))
}

fn look_at(parent: &File, name: &OsStr) -> Answer<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map(File::from).map_err(sys)
}

impl Passthrough {
    pub fn new(real: &Path, control: Arc<Control>) -> io::Result<Passthrough> {
        let real = real.canonicalize()?;
        let root = Node { handle: Arc::new(File::open(&real)?), lookups: 1 };
        Ok(Passthrough {
            real,
            control,
            nodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)])),
            open: Mutex::default(),
            next: AtomicU64::new(1),
        })
    }

    fn node(&self, inode: INodeNo) -> Answer<Arc<File>> {
        let nodes = guard(&self.nodes);
        nodes.get(&inode.0).map(|node| Arc::clone(&node.handle)).ok_or(Errno::ENOENT)
    }

    fn opened(&self, handle: FileHandle) -> Answer<Arc<Opened>> {
        guard(&self.open).get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn keep(&self, opened: Opened) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        guard(&self.open).insert(handle, Arc::new(opened));
        FileHandle(handle)
    }

    /// The path of an open file or directory, relative to the store.
    fn path_of(&self, file: &File) -> PathBuf {
        let path = fs::read_link(by_handle(file)).unwrap_or_default();
        path.strip_prefix(&self.real).map(Path::to_owned).unwrap_or_default()
    }

    /// What is there under that name; the kernel knows it from now on.
    fn enter(&self, parent: &File, name: &OsStr) -> Answer<FileAttr> {
        let handle = look_at(parent, name)?;
        let attr = attr_of(&handle)?;
        let mut nodes = guard(&self.nodes);
        let node = nodes.entry(attr.ino.0);
        node.or_insert_with(|| Node { handle: Arc::new(handle), lookups: 0 }).lookups += 1;
        Ok(attr)
    }

    /// After a name was made: it belongs to who asked, and is noted.
    fn made(&self, request: &Request, parent: &File, name: &OsStr) -> Answer<FileAttr> {
        let (user, group) = (request.uid(), request.gid());
        if user != rustix::process::getuid().as_raw() {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent, name, Some(user), Some(group), flags).map_err(sys)?;
        }
        let attr = self.enter(parent, name)?;
        self.control.named(self.path_of(parent).join(name), attr.ino.0);
        Ok(attr)
    }

    fn open_again(&self, inode: INodeNo, flags: i32) -> Answer<File> {
        let file = self.node(inode)?;
        // the place of a write is the kernel's to say
        let keep = OFlags::ACCMODE | OFlags::TRUNC;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()) & keep;
        let again = rustix::fs::open(by_handle(&file), flags | OFlags::CLOEXEC, Mode::empty());
        again.map(File::from).map_err(sys)
    }

    fn change(&self, inode: INodeNo, wish: &Wish) -> Answer<FileAttr> {
        let file = self.node(inode)?;
        let path = by_handle(&file);
        if let Some(mode) = wish.mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
        }
        if wish.user.is_some() || wish.group.is_some() {
            std::os::unix::fs::chown(&path, wish.user, wish.group)?;
        }
        if let Some(size) = wish.size {
            let had = fs::metadata(&path)?.len();
            let more = size.saturating_sub(had);
            if self.control.admit(Call::Write(more))? < more {
                return Err(Errno::ENOSPC);
            }
            fs::OpenOptions::new().write(true).open(&path)?.set_len(size)?;
            self.control.wrote(inode.0);
        }
        if wish.accessed.is_some() || wish.modified.is_some() {
            let times = Timestamps {
                last_access: as_time(wish.accessed),
                last_modification: as_time(wish.modified),
            };
            let none = AtFlags::empty();
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, none).map_err(sys)?;
        }
        attr_of(&file)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, flags: AtFlags) -> Answer<()> {
        self.control.admit(Call::Change)?;
        let parent = self.node(parent)?;
        rustix::fs::unlinkat(&*parent, name, flags).map_err(sys)?;
        self.control.removed(self.path_of(&parent).join(name));
        Ok(())
    }

    fn list(&self, inode: INodeNo) -> Answer<FileHandle> {
        self.control.admit(Call::Look)?;
        let directory = self.open_again(inode, OFlags::RDONLY.bits().cast_signed())?;
        let mut names = vec![
            (inode.0, FileType::Directory, OsString::from(".")),
            (inode.0, FileType::Directory, OsString::from("..")),
        ];
        for entry in fs::read_dir(by_handle(&directory))? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).unwrap_or(FileType::RegularFile);
            names.push((std::os::unix::fs::DirEntryExt::ino(&entry), kind, entry.file_name()));
        }
        Ok(self.keep(Opened::Directory(directory, names)))
    }

    fn sync(&self, inode: INodeNo, handle: FileHandle, data_only: bool) -> Answer<()> {
        self.control.admit(Call::Change)?;
        let opened = self.opened(handle)?;
        let (Opened::File(file) | Opened::Directory(file, _)) = &*opened;
        if data_only { file.sync_data()? } else { file.sync_all()? }
        self.control.synced(self.path_of(file), inode.0);
        Ok(())
    }
}

/// What is to be changed of a file.
struct Wish {
    mode: Option<u32>,
    user: Option<u32>,
    group: Option<u32>,
    size: Option<u64>,
    accessed: Option<TimeOrNow>,
    modified: Option<TimeOrNow>,
}

fn as_time(wish: Option<TimeOrNow>) -> rustix::fs::Timespec {
    let nanos = |tv_nsec| rustix::fs::Timespec { tv_sec: 0, tv_nsec };
    match wish {
        None => nanos(rustix::fs::UTIME_OMIT),
        Some(TimeOrNow::Now) => nanos(rustix::fs::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(at)) => {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            rustix::fs::Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: since.subsec_nanos().into(),
            }
        }
    }
}

fn attr_of(file: &File) -> Answer<FileAttr> {
    let about = file.metadata()?;
    let time = |seconds: i64, nanos: i64| -> SystemTime {
        let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(FileAttr {
        ino: INodeNo(about.ino()),
        size: about.len(),
        blocks: about.blocks(),
        atime: time(about.atime(), about.atime_nsec()),
        mtime: time(about.mtime(), about.mtime_nsec()),
        ctime: time(about.ctime(), about.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(about.file_type()).unwrap_or(FileType::RegularFile),
        perm: u16::try_from(about.mode() & 0o7777).unwrap_or(0),
        nlink: small(about.nlink()),
        uid: about.uid(),
        gid: about.gid(),
        rdev: small(about.rdev()),
        blksize: small(about.blksize()),
        flags: 0,
    })
}

/// Answers with what the block says, or with its error.
macro_rules! answer {
    ($reply:ident, |$value:pat_param| $send:expr, $made:expr) => {
        match $made {
            Ok($value) => $send,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.control.admit(Call::Look);
        let found = found.and_then(|_| self.enter(&*self.node(parent)?, name));
        answer!(reply, |attr| reply.entry(&AT_ONCE, &attr, Generation(0)), found);
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        let mut nodes = guard(&self.nodes);
        if let Some(node) = nodes.get_mut(&inode.0) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                nodes.remove(&inode.0);
            }
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.control.admit(Call::Look).and_then(|_| attr_of(&*self.node(inode)?));
        answer!(reply, |attr| reply.attr(&AT_ONCE, &FileAttr { ino: inode, ..attr }), found);
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wish = Wish { mode, user, group, size, accessed, modified };
        let changed = self.control.admit(Call::Change).and_then(|_| self.change(inode, &wish));
        answer!(reply, |attr| reply.attr(&AT_ONCE, &FileAttr { ino: inode, ..attr }), changed);
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        let read = self.control.admit(Call::Look).and_then(|_| {
            let file = self.node(inode)?;
            rustix::fs::readlinkat(&*file, "", Vec::new()).map_err(sys)
        });
        answer!(reply, |target| reply.data(target.as_bytes()), read);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, to: &Path, reply: ReplyEntry) {
        let made = self.control.admit(Call::Name).and_then(|_| {
            let parent = self.node(parent)?;
            rustix::fs::symlinkat(to, &*parent, name).map_err(sys)?;
            self.made(request, &parent, name)
        });
        answer!(reply, |attr| reply.entry(&AT_ONCE, &attr, Generation(0)), made);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.control.admit(Call::Name).and_then(|_| {
            let parent = self.node(parent)?;
            let mode = Mode::from_raw_mode(mode & !umask);
            rustix::fs::mkdirat(&*parent, name, mode).map_err(sys)?;
            self.made(request, &parent, name)
        });
        answer!(reply, |attr| reply.entry(&AT_ONCE, &attr, Generation(0)), made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, |()| reply.ok(), self.remove(parent, name, AtFlags::empty()));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, |()| reply.ok(), self.remove(parent, name, AtFlags::REMOVEDIR));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let moved = self.control.admit(Call::Name).and_then(|_| {
            let (parent, new_parent) = (self.node(parent)?, self.node(new_parent)?);
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            let moved = rustix::fs::renameat_with(&*parent, name, &*new_parent, new_name, flags);
            moved.map_err(sys)?;
            let from = self.path_of(&parent).join(name);
            self.control.renamed(from, self.path_of(&new_parent).join(new_name));
            Ok(())
        });
        answer!(reply, |()| reply.ok(), moved);
    }

    fn link(
        &self,
        request: &Request,
        inode: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self.control.admit(Call::Name).and_then(|_| {
            let (file, parent) = (self.node(inode)?, self.node(new_parent)?);
            let (from, follow) = (by_handle(&file), AtFlags::SYMLINK_FOLLOW);
            rustix::fs::linkat(rustix::fs::CWD, from, &*parent, new_name, follow).map_err(sys)?;
            self.made(request, &parent, new_name)
        });
        answer!(reply, |attr| reply.entry(&AT_ONCE, &attr, Generation(0)), made);
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
        let call = if writes { Call::Change } else { Call::Look };
        let opened = self.control.admit(call).and_then(|_| self.open_again(inode, flags.0));
        answer!(reply, |file| reply.opened(self.keep(Opened::File(file)), HOW), opened);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.control.admit(Call::Name).and_then(|_| {
            let parent = self.node(parent)?;
            let keep = OFlags::ACCMODE | OFlags::TRUNC | OFlags::EXCL;
            let flags = OFlags::from_bits_retain(flags.cast_unsigned()) & keep;
            let flags = flags | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(mode & !umask);
            let file = rustix::fs::openat(&*parent, name, flags, mode).map_err(sys)?;
            let attr = self.made(request, &parent, name)?;
            self.control.wrote(attr.ino.0);
            Ok((attr, self.keep(Opened::File(file.into()))))
        });
        let none = Generation(0);
        answer!(reply, |(attr, file)| reply.created(&AT_ONCE, &attr, none, file, HOW), made);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.control.admit(Call::Look).and_then(|_| {
            let Opened::File(file) = &*self.opened(handle)? else { return Err(Errno::EISDIR) };
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            let mut got = 0;
            while got < bytes.len() {
                match file.read_at(&mut bytes[got..], offset + got as u64)? {
                    0 => break,
                    more => got += more,
                }
            }
            bytes.truncate(got);
            Ok(bytes)
        });
        answer!(reply, |bytes| reply.data(&bytes), read);
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let wrote = self.control.admit(Call::Write(data.len() as u64)).and_then(|given| {
            let Opened::File(file) = &*self.opened(handle)? else { return Err(Errno::EISDIR) };
            let given = usize::try_from(given).unwrap_or(data.len());
            file.write_all_at(&data[..given], offset)?;
            self.control.wrote(inode.0);
            Ok(u32::try_from(given).unwrap_or(u32::MAX))
        });
        answer!(reply, |bytes| reply.written(bytes), wrote);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        guard(&self.open).remove(&handle.0);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, inode: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        answer!(reply, |()| reply.ok(), self.sync(inode, handle, data));
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        answer!(reply, |()| reply.ok(), self.sync(inode, handle, data));
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, |handle| reply.opened(handle, FopenFlags::empty()), self.list(inode));
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.control.admit(Call::Look).and_then(|_| self.opened(handle));
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        let Opened::Directory(_, names) = &*listed else { return reply.error(Errno::ENOTDIR) };
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (inode, kind, name)) in names.iter().enumerate().skip(first) {
            if reply.add(INodeNo(*inode), place as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        guard(&self.open).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = self.control.admit(Call::Look).and_then(|_| {
            rustix::fs::statvfs(&self.real).map_err(sys)
        });
        answer!(
            reply,
            |real| {
                let unit = real.f_frsize.max(1);
                let room = self.control.room().map_or(real.f_bavail, |bytes| bytes / unit);
                let (free, small) = (real.f_bavail.min(room), u32::try_from(unit).unwrap_or(4096));
                reply.statfs(real.f_blocks, free, free, real.f_files, real.f_ffree, small, 255, small);
            },
            found
        );
    }
}
