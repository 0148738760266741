//! Images that NVRTC has made, on disk: one file an image, written beside its place and renamed, so that a reader sees all of it or nothing, whoever else
//! writes. A file that is damaged, or of another source, is not there; a folder that cannot be written serves without.
use crate::model::context::Cache;
use crate::model::ranks::hash_bytes;
use std::ffi::{CStr, OsStr};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// First bytes of a file: its kind and version.
const MAGIC: [u8; 8] = *b"passrl-1";
/// Then the source's hash, the image's hash, its bytes, and the bytes of the name of what made it.
const HEADER: usize = 8 + 4 * 8;
/// More than any image.
const MOST: u64 = 1 << 28;

pub struct Folder(Option<PathBuf>);

/// The home folder as the system's list of users has it (the environment is not read).
fn home() -> Option<PathBuf> {
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut buffer = vec![0 as libc::c_char; 16 << 10];
    let mut found = std::ptr::null_mut();
    // SAFETY: an entry and a buffer of that size; read only where `found` says that it is written.
    unsafe {
        let outcome = libc::getpwuid_r(libc::geteuid(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found);
        if outcome != 0 || found.is_null() || (*found).pw_dir.is_null() {
            return None;
        }
        let folder = PathBuf::from(OsStr::from_bytes(CStr::from_ptr((*found).pw_dir).to_bytes()));
        folder.is_dir().then_some(folder)
    }
}

impl Folder {
    pub fn open(cache: &Cache) -> Folder {
        Folder(match cache {
            Cache::Off => None,
            Cache::At(folder) => Some(PathBuf::from(folder)),
            Cache::Home => home().map(|home| home.join(".cache/passrl")),
        })
    }

    pub fn path(&self, name: &str) -> String {
        self.0.as_ref().map(|folder| folder.join(name).display().to_string()).unwrap_or_default()
    }

    /// An image of this source, with the name of what made it.
    pub fn read(&self, name: &str, source: u64) -> Option<(Vec<u8>, String)> {
        let path = self.0.as_ref()?.join(name);
        let about = std::fs::metadata(&path).ok()?;
        // Code that another user may have put there is not run.
        // SAFETY: a number of this process.
        let ours = about.uid() == unsafe { libc::geteuid() } || about.uid() == 0;
        if !about.is_file() || about.len() > MOST || !ours || about.mode() & 0o022 != 0 {
            return None;
        }
        let bytes = std::fs::read(&path).ok()?;
        let word = |i: usize| Some(u64::from_le_bytes(bytes.get(8 * i..8 * i + 8)?.try_into().ok()?));
        let sizes = (word(3)?, word(4)?);
        let whole = bytes.len().checked_sub(HEADER)? as u64 == sizes.0.checked_add(sizes.1)?;
        if bytes[..8] != MAGIC || word(1)? != source || !whole {
            return None;
        }
        let (image, made_by) = bytes[HEADER..].split_at(sizes.0 as usize);
        (hash_bytes(&bytes[HEADER..]) == word(2)?).then(|| (image.to_vec(), String::from_utf8_lossy(made_by).into_owned()))
    }

    /// Keeps an image; says in words what came of it.
    pub fn write(&self, name: &str, source: u64, image: &[u8], made_by: &str) -> String {
        let Some(folder) = &self.0 else { return "kept nowhere".into() };
        match keep(folder, name, source, image, made_by) {
            Ok(()) => format!("kept in {}", folder.join(name).display()),
            Err(fault) => format!("not kept in {}: {fault}", folder.display()),
        }
    }
}

fn keep(folder: &Path, name: &str, source: u64, image: &[u8], made_by: &str) -> std::io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut content = [image, made_by.as_bytes()].concat();
    let mut bytes = MAGIC.to_vec();
    for word in [source, hash_bytes(&content), image.len() as u64, made_by.len() as u64] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.append(&mut content);
    let beside = folder.join(format!(".{name}.{}.{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside).and_then(|mut file| file.write_all(&bytes));
    let kept = written.and_then(|()| std::fs::rename(&beside, folder.join(name)));
    if kept.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    kept
}
