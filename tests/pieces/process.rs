//! Ranks as processes of their own, which are started from the test itself: an all-reduce over sockets, of which a rank may end at any message.
use crate::cases::Rng;
use crate::cut::{self, Call, Piece, Stage};
use crate::harness::{self, How, library};
use crate::oracle::{Batch, Config};
use crate::wire::combine;
use std::ffi::c_void;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

pub const RANK: &str = "PASSRL_TEST_RANK";
pub const SIZE: usize = 3;

/// Rank 0 has a line to every other rank, and every other to it.
struct Star {
    rank: usize,
    lines: Vec<UnixStream>,
    calls: usize,
    /// The message at which this process ends.
    last: Option<usize>,
}

impl Star {
    fn new(rank: usize, folder: &Path, last: Option<usize>) -> Star {
        let at = |rank: usize| folder.join(format!("{rank}"));
        let lines = if rank == 0 {
            let listeners: Vec<_> = (1..SIZE).map(|r| UnixListener::bind(at(r)).expect("a socket")).collect();
            std::fs::write(folder.join("ready"), "").expect("a file");
            listeners.iter().map(|l| l.accept().expect("a rank").0).collect()
        } else {
            while !folder.join("ready").exists() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            vec![UnixStream::connect(at(rank)).expect("rank 0")]
        };
        Star { rank, lines, calls: 0, last }
    }

    fn reduce(&mut self, own: &mut [u8], dtype: i32, op: i32) -> std::io::Result<()> {
        if self.last == Some(self.calls) {
            std::process::abort();
        }
        self.calls += 1;
        if self.rank > 0 {
            self.lines[0].write_all(own)?;
            return self.lines[0].read_exact(own);
        }
        let mut other = vec![0; own.len()];
        for line in &mut self.lines {
            line.read_exact(&mut other)?;
            combine(own, &other, dtype, op);
        }
        self.lines.iter_mut().try_for_each(|line| line.write_all(own))
    }
}

unsafe extern "C" fn all_reduce(user: *mut c_void, buffer: *mut c_void, count: usize, dtype: i32, op: i32, _: *mut c_void) -> i32 {
    let bytes = count * if dtype == passrl::abi::constants::PASSRL_I64 { 8 } else { 4 };
    // SAFETY: the star outlives the plan; `count` elements by the contract.
    let (star, own) = unsafe { (&*user.cast::<Mutex<Star>>(), std::slice::from_raw_parts_mut(buffer.cast::<u8>(), bytes)) };
    let mut star = star.lock().unwrap();
    match star.reduce(own, dtype, op) {
        Ok(()) => 0,
        Err(_) => {
            // As an engine does that has lost a rank: no other waits for this one.
            star.lines.clear();
            7
        }
    }
}

/// One rank, in a process of its own: says its status and sentence, and whether its outputs are untouched.
pub fn rank(cfg: &Config, batch: &Batch) {
    let told = |name: &str| std::env::var(name).expect("told by the parent");
    let rank: usize = told(RANK).parse().unwrap();
    let last: usize = told("PASSRL_TEST_LAST").parse().unwrap();
    let star = Mutex::new(Star::new(rank, &PathBuf::from(told("PASSRL_TEST_FOLDER")), (rank == 1).then_some(last)));
    let mut collective: passrl::abi::types::passrl_collective = library().initial();
    collective.user = (&raw const star).cast_mut().cast();
    collective.all_reduce = Some(all_reduce);
    (collective.rank, collective.size) = (rank as i32, SIZE as i32);
    let (ranks, how) = (cut::zigzag(batch, SIZE), How::default());
    let pieces: Vec<Piece> = ranks.iter().flatten().copied().collect();
    let plan = library().plan_over(&harness::config(library(), cfg), &cut::limits(batch, &pieces, &how), &how, &collective);
    let (status, said, untouched) = match plan {
        Err((status, said)) => (status, said, true),
        Ok(plan) => {
            let call = Call::new(ranks[rank].clone(), batch, true, &mut Rng(1));
            let of = cut::parts(batch, &call);
            let mut placed = cut::place(cfg, &of, &how);
            let stage = Stage::new(&mut placed, batch, &call);
            let (status, said) = cut::run(&plan, &stage, &how);
            (status, said, stage.untouched())
        }
    };
    println!("\nTOLD {status} {untouched} {said}");
}

/// Runs test `test` as all ranks, of which rank 1 ends at message `last`; what each says.
pub fn ranks(test: &str, last: usize) -> Vec<String> {
    let folder = std::env::temp_dir().join(format!("passrl-ranks-{}-{last}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", test, "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env(RANK, rank.to_string()).env("PASSRL_TEST_LAST", last.to_string()).env("PASSRL_TEST_FOLDER", &folder);
        command.spawn().expect("a process")
    };
    let processes: Vec<_> = (0..SIZE).map(start).collect();
    let said = processes.into_iter().map(|p| String::from_utf8_lossy(&p.wait_with_output().expect("its end").stdout).into_owned()).collect();
    let _ = std::fs::remove_dir_all(&folder);
    said
}
