//! Contexts of both backends, and twins of host views in device memory.
#![allow(dead_code)]
use crate::harness::device::{self, Block};
use crate::rig::last;
use passrl::abi::constants::*;
use passrl::abi::context::{passrl_context_create, passrl_context_destroy};
use passrl::abi::status::PASSRL_OK;
use passrl::abi::structs::Growing;
use passrl::abi::types::*;
use std::ptr::{null, null_mut};

/// Contexts of both backends.
pub struct Both {
    pub host: *mut passrl_context,
    pub device: *mut passrl_context,
}

impl Both {
    pub fn new() -> Both {
        let (mut host, mut device) = (null_mut(), null_mut());
        let compiler = device::compiler();
        let mut options = passrl_context_options::defaults();
        options.threads = 1;
        // SAFETY: structs of the header; handles are written on success.
        unsafe {
            assert_eq!(passrl_context_create(&options, &mut host), PASSRL_OK, "{}", last());
            compiler.choose(&mut options);
            assert_eq!(passrl_context_create(&options, &mut device), PASSRL_OK, "{}", last());
        }
        Both { host, device }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        // SAFETY: live handles, given back once.
        unsafe {
            passrl_context_destroy(self.host);
            passrl_context_destroy(self.device);
        }
    }
}

/// Copies of host views in device memory. Views of one memory have one twin.
#[derive(Default)]
pub struct Twins {
    /// Where the host's lies, and its twin.
    blocks: Vec<(usize, Block)>,
    views: Vec<Box<passrl_view>>,
}

impl Twins {
    pub fn of(&mut self, view: *const passrl_view) -> *const passrl_view {
        // SAFETY: NULL, or a dense view of the test's own memory.
        let Some(view) = (unsafe { view.as_ref() }) else { return null() };
        let each = match view.dtype {
            PASSRL_F64 | PASSRL_I64 => 8,
            PASSRL_F32 | PASSRL_I32 => 4,
            PASSRL_F16 | PASSRL_BF16 => 2,
            _ => 1,
        };
        let count = if view.ndim == 2 { view.shape[0] * view.stride[0] } else { view.shape[0] } as usize;
        let data = match self.blocks.iter().find(|(host, _)| count > 0 && *host == view.data.addr()) {
            Some((_, block)) => block.pointer(),
            None => {
                // SAFETY: as above.
                let block = Block::of(unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), count * each) });
                let at = block.pointer();
                self.blocks.push((view.data.addr(), block));
                at
            }
        };
        self.views.push(Box::new(passrl_view { data, device_type: PASSRL_CUDA, device_id: 0, ..*view }));
        &raw const **self.views.last().expect("pushed")
    }

    /// Every array that a primitive reads of a batch.
    pub fn batch(&mut self, b: &passrl_batch) -> passrl_batch {
        let mut twin = *b;
        for view in [
            &mut twin.cu_seqlens, &mut twin.lengths, &mut twin.mask, &mut twin.absent, &mut twin.in_stats, &mut twin.group_index, &mut twin.group_offsets,
            &mut twin.outcome, &mut twin.format, &mut twin.format_ok, &mut twin.signal[0], &mut twin.step_offsets, &mut twin.step_ends, &mut twin.step_begins,
            &mut twin.step_scores,
        ] {
            *view = self.of(*view);
        }
        twin.extra = twin.extra.map(|view| self.of(view));
        twin
    }

    fn block(&self, view: *const passrl_view) -> &Block {
        // SAFETY: a view of this object.
        let at = unsafe { (*view).data.addr() } as u64;
        &self.blocks.iter().find(|(_, block)| block.at == at).expect("a twin").1
    }

    /// Bytes of a twin.
    pub fn read(&self, view: *const passrl_view) -> Vec<u8> {
        self.block(view).read()
    }

    pub fn fill(&self, view: *const passrl_view, content: &[u8]) {
        self.block(view).fill(content);
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Line(pub [u8; 64]);
