//! A file that grows block by block: one thread writes and hashes, one makes it last, while the caller goes on.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use super::{
    Control, Halt,
    tree::{BRANCH, Tree, branch},
};

/// Blocks on their way at most: more than a segment of 10 s, so that writing goes on while the next one is read.
const BLOCKS_AHEAD: usize = 32;
/// The disk is asked to begin with what it has after so many bytes.
const SYNC_EVERY: u64 = 32 << 20;

/// A piece of the file.
#[derive(Debug)]
struct Block {
    offset: u64,
    bytes: Vec<u8>,
}

/// The file behind its reserved front.
#[derive(Debug)]
pub(super) struct Output {
    control: Arc<Control>,
    file: Arc<File>,
    room: usize,
    /// Being filled.
    block: Block,
    to_write: Option<SyncSender<Block>>,
    empty: Receiver<Vec<u8>>,
    writing: Option<JoinHandle<io::Result<Hashed>>>,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

/// The hashes of what was written.
#[derive(Debug, Default)]
struct Hashed {
    tree: Tree,
    /// Bytes that share a branch with the reserved front.
    first: Vec<u8>,
}

impl Output {
    /// Creates the file, which must not exist; its first `room` bytes are written last.
    pub fn create(path: &Path, room: usize, control: Arc<Control>) -> Result<Output, Halt> {
        control.go_on()?;
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(Halt::Io)?;
        let file = Arc::new(file);
        let (to_write, blocks) = sync_channel::<Block>(BLOCKS_AHEAD);
        let (to_reuse, empty) = channel();
        let (to_sync, grown) = channel();
        let behind = Behind {
            file: Arc::clone(&file),
            control: Arc::clone(&control),
            room,
            to_sync,
            to_reuse,
        };
        let syncs = Arc::clone(&file);
        let block = Block { offset: room as u64, bytes: Vec::with_capacity(BRANCH) };
        let (to_write, writing, syncing) = (Some(to_write), None, None);
        let mut output = Output { control, file, room, block, to_write, empty, writing, syncing };
        // from here on a thread that began is joined, also when the next one does not begin
        output.writing = Some(spawn("mux-write", move || behind.write(&blocks))?);
        output.syncing = Some(spawn("mux-sync", move || sync(&syncs, &grown))?);
        Ok(output)
    }

    /// Where the next byte will lie in the file.
    pub fn position(&self) -> u64 {
        self.block.offset + self.block.bytes.len() as u64
    }

    /// Appends.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Halt> {
        loop {
            // blocks end where branches do
            let begin = usize::try_from(self.block.offset % BRANCH as u64).unwrap_or(0);
            let space = BRANCH - begin - self.block.bytes.len();
            let (now, later) = bytes.split_at(bytes.len().min(space));
            self.block.bytes.extend_from_slice(now);
            if now.len() < space {
                return Ok(());
            }
            self.hand_on()?;
            bytes = later;
        }
    }

    fn hand_on(&mut self) -> Result<(), Halt> {
        self.control.go_on()?;
        let mut bytes = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BRANCH));
        bytes.clear();
        let next = Block { offset: self.position(), bytes };
        let full = std::mem::replace(&mut self.block, next);
        let sent = self.to_write.as_ref().is_some_and(|to| to.send(full).is_ok());
        // the writing thread ends early only by an error, which joining it tells
        if sent { Ok(()) } else { Err(self.wait_for_write().err().unwrap_or(Halt::Stopped)) }
    }

    fn wait_for_write(&mut self) -> Result<Hashed, Halt> {
        self.to_write = None;
        let written = self.writing.take().map(JoinHandle::join).and_then(Result::ok);
        written.unwrap_or_else(|| Err(io::Error::other("a thread ended"))).map_err(Halt::Io)
    }

    /// Writes the front, exactly as many bytes as were reserved; answers the hash of the whole file, hex.
    pub fn finish(mut self, mut front: Vec<u8>) -> Result<(Arc<File>, String), Halt> {
        if !self.block.bytes.is_empty() {
            self.hand_on()?;
        }
        let hashed = self.wait_for_write()?;
        if front.len() != self.room {
            return Err(Halt::NoRoom);
        }
        self.file.write_all_at(&front, 0).map_err(Halt::Io)?;
        let synced = self.syncing.take().map_or(Ok(Ok(())), JoinHandle::join);
        synced.unwrap_or_else(|_| Err(io::Error::other("a thread ended"))).map_err(Halt::Io)?;
        front.extend_from_slice(&hashed.first);
        self.control.beat();
        Ok((Arc::clone(&self.file), hashed.tree.finish(&front)))
    }
}

impl Drop for Output {
    /// No thread of a file outlives it. What they found has no one left to be told.
    fn drop(&mut self) {
        self.to_write = None;
        let _ = self.writing.take().map(JoinHandle::join);
        let _ = self.syncing.take().map(JoinHandle::join);
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Halt> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(Halt::Io)
}

/// What the writing thread works with.
struct Behind {
    file: Arc<File>,
    control: Arc<Control>,
    room: usize,
    to_sync: Sender<()>,
    to_reuse: Sender<Vec<u8>>,
}

impl Behind {
    /// Writes block after block, and hashes each while it is still in this core's cache.
    fn write(&self, blocks: &Receiver<Block>) -> io::Result<Hashed> {
        let own = self.room.next_multiple_of(BRANCH) as u64;
        let mut hashed = Hashed::default();
        let mut since = 0;
        while let Ok(Block { offset, bytes }) = blocks.recv() {
            self.file.write_all_at(&bytes, offset)?;
            self.control.beat();
            since += bytes.len() as u64;
            if since >= SYNC_EVERY {
                since = 0;
                let _ = self.to_sync.send(());
            }
            if offset < own {
                hashed.first.extend_from_slice(&bytes);
            } else {
                hashed.tree.push(branch(offset, &bytes), bytes.len());
            }
            // nobody may want it back any more
            let _ = self.to_reuse.send(bytes);
        }
        Ok(hashed)
    }
}

/// Begins early with what the last sync would otherwise have to wait for. The kernel tells of a failed write once per
/// open file: what is heard here would not be said again there.
fn sync(file: &File, grown: &Receiver<()>) -> io::Result<()> {
    while grown.recv().is_ok() {
        // those that came meanwhile are met by this one
        while grown.try_recv().is_ok() {}
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_early_sync_is_told() {
        let (grow, grown) = channel();
        grow.send(()).expect("a receiver");
        drop(grow);
        // a device that cannot be synced
        let device = File::open("/dev/null").expect("always there");
        assert!(sync(&device, &grown).is_err());
    }
}
