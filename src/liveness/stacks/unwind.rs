//! From registers and a copied stack to the addresses of the calls, by the unwind tables in the modules' own memory.

use super::capture::StackCopy;
use super::maps::{self, Module};
use super::memory;
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder as _};

/// Deeper is a runaway recursion.
const FRAMES_MAX: usize = 4096;
/// Places that are tried as the frame pointer, when it is not known.
const SEARCH_TRIES_MAX: usize = 200;
/// Handlers inside handlers that are followed.
const HANDLERS_MAX: usize = 4;
/// `syscall`.
const SYSTEM_CALL: [u8; 2] = [0x0f, 0x05];
/// `mov $15, %rax; syscall`: rt_sigreturn(2), to which every handler of a signal returns.
const TRAMPOLINE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
/// Where the kernel leaves the interrupted frame pointer, in bytes from the slot with the trampoline's address: 8 bytes
/// of that, 40 of ucontext before its registers, then r8-r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
const SAVED_BP: u64 = 48 + 8 * 10;
/// Where the stack pointer is among them.
const SAVED_SP: u64 = 48 + 8 * 15;
/// Where the instruction pointer is among them.
const SAVED_PC: u64 = 48 + 8 * 16;

/// A module with what is needed to unwind and to name its code.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) module: Module,
    /// What is added to addresses of the file to get those in memory.
    pub(super) bias: u64,
}

/// The calls of one thread.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Addresses inside the calling instructions, the innermost first.
    pub(super) pcs: Vec<u64>,
    /// Down to where the thread began.
    pub(super) complete: bool,
}

impl Calls {
    /// Goes on with the calls that were interrupted by the last one.
    fn append(&mut self, more: Calls) {
        self.pcs.extend(more.pcs);
        self.complete = more.complete;
    }
}

/// Unwinds stacks of this process as it is loaded now.
pub(super) struct Unwinder {
    pub(super) codes: Vec<Code>,
    tables: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
}

impl Unwinder {
    /// Reads the tables of all modules, some hundred microseconds.
    pub(super) fn new() -> Unwinder {
        let mut unwinder = Unwinder {
            codes: Vec::new(),
            tables: UnwinderX86_64::new(),
            cache: CacheX86_64::new(),
        };
        for module in maps::read_modules() {
            unwinder.add(module);
        }
        unwinder
    }

    fn add(&mut self, module: Module) {
        let Some(layout) = Layout::read(&module) else { return };
        if let Some(tables) = layout.tables {
            let range = module.start..module.end;
            let module = framehop::Module::new(String::new(), range, module.start, tables);
            self.tables.add_module(module);
        }
        self.codes.push(Code {
            module,
            bias: layout.bias,
        });
    }

    fn is_code(&self, address: u64) -> bool {
        self.codes.iter().any(|code| code.module.contains(address))
    }

    /// The calls of a copied stack, also those that a handler of a signal has interrupted, which may be on another
    /// stack; `scratch` takes what of that one can be read.
    pub(super) fn calls(&mut self, copy: StackCopy<'_>, scratch: &mut Vec<u8>) -> Calls {
        let mut calls = self.plain_calls(copy);
        // Code without unwind tables ends the walk at once; such code often has frame pointers.
        if !calls.complete && calls.pcs.len() < 3 {
            calls = self.search(copy, calls);
        }
        let mut current = copy;
        let mut from = 0;
        for _ in 0..HANDLERS_MAX {
            let Some(at) = (from..calls.pcs.len()).find(|at| is_trampoline(calls.pcs[*at])) else {
                break;
            };
            let Some([pc, sp, bp]) = self.interrupted(current, calls.pcs[at] + 1) else {
                break;
            };
            from = at + 1;
            calls.pcs.truncate(from);
            if !current.has(sp) {
                // The handler ran on an alternate stack. A third stack would have to be copied too; there is none.
                fill(scratch, sp);
                let (start, bytes) = (sp, scratch.as_slice());
                calls.append(self.plain_calls(StackCopy {
                    pc,
                    sp,
                    bp,
                    start,
                    bytes,
                }));
                break;
            }
            current = StackCopy { pc, sp, bp, ..current };
            calls.append(self.plain_calls(current));
        }
        calls
    }

    /// The calls of a thread of which only stack pointer and address are known: the frame pointer is searched for.
    pub(super) fn calls_by_search(&mut self, sp: u64, pc: u64, scratch: &mut Vec<u8>) -> Calls {
        fill(scratch, sp);
        let copy = StackCopy {
            pc,
            sp,
            bp: 0,
            start: sp,
            bytes: scratch.as_slice(),
        };
        let without = self.plain_calls(copy);
        self.search(copy, without)
    }

    /// Tries what may be the frame pointer: the lowest place above which a return address lies and from which the walk
    /// reaches the thread's beginning. Lowest, because from a caller's frame it would too, with the frames between
    /// missing; a place that only looks like a frame does not lead to the beginning. If none does, the longest walk.
    fn search(&mut self, copy: StackCopy<'_>, without: Calls) -> Calls {
        let mut best = without;
        let mut tries = 0;
        for bp in (copy.sp.next_multiple_of(8)..copy.end()).step_by(8) {
            if best.complete || tries == SEARCH_TRIES_MAX {
                break;
            }
            if word(copy, bp + 8).is_some_and(|address| self.is_code(address)) {
                tries += 1;
                let calls = self.plain_calls(StackCopy { bp, ..copy });
                if calls.complete || calls.pcs.len() > best.pcs.len() {
                    best = calls;
                }
            }
        }
        best
    }

    fn plain_calls(&mut self, copy: StackCopy<'_>) -> Calls {
        let mut calls = Calls::default();
        if copy.sp < 8 {
            return calls;
        }
        let mut read_stack = |address| word(copy, address).ok_or(());
        // To the walk, 0 is the end of a chain of frame pointers; in a register it may be any function's number.
        let registers = UnwindRegsX86_64::new(copy.pc, copy.sp, copy.bp.max(1));
        let mut frames = self
            .tables
            .iter_frames(copy.pc, registers, &mut self.cache, &mut read_stack);
        let ended = loop {
            match frames.next() {
                Ok(Some(frame)) if calls.pcs.len() < FRAMES_MAX => {
                    calls.pcs.push(FrameAddress::address_for_lookup(frame))
                }
                Ok(None) => break true,
                Ok(Some(_)) | Err(_) => break false,
            }
        };
        // In the kernel, a thread stands behind the instruction that it called it with; what is written there belongs
        // to whatever the compiler has put next.
        if let Some(pc) = calls.pcs.first_mut().filter(|pc| is_after_system_call(**pc)) {
            *pc -= 1;
        }
        // The walk also ends, as if at the beginning, in code that no module has.
        calls.complete = ended && calls.pcs.len() > 1 && calls.pcs.last().is_some_and(|pc| self.is_code(*pc));
        calls
    }

    /// Address, stack pointer and frame pointer that a handler has interrupted, given where the handler returns to.
    fn interrupted(&self, copy: StackCopy<'_>, trampoline: u64) -> Option<[u64; 3]> {
        let saved = |address: u64| {
            if word(copy, address)? != trampoline {
                return None;
            }
            let [pc, sp, bp] = [SAVED_PC, SAVED_SP, SAVED_BP].map(|offset| word(copy, address + offset));
            let registers = [pc?, sp?, bp?];
            self.is_code(registers[0]).then_some(registers)
        };
        (copy.sp.next_multiple_of(8)..copy.end()).step_by(8).find_map(saved)
    }
}

/// Returns whether `pc`, the address before a return address, belongs to a handler that returns to the trampoline.
pub(super) fn is_trampoline(pc: u64) -> bool {
    let mut bytes = [0; TRAMPOLINE.len()];
    memory::read(pc.wrapping_add(1), &mut bytes) == bytes.len() && bytes == TRAMPOLINE
}

/// Returns whether the instruction before `pc` is `syscall`.
fn is_after_system_call(pc: u64) -> bool {
    let mut bytes = [0; SYSTEM_CALL.len()];
    memory::read(pc.wrapping_sub(2), &mut bytes) == bytes.len() && bytes == SYSTEM_CALL
}

/// Reads the stack from `sp` on, as far as it goes.
fn fill(scratch: &mut Vec<u8>, sp: u64) {
    scratch.resize(memory::CALL_BYTES_MAX, 0);
    let len = memory::read(sp, scratch);
    scratch.truncate(len);
}

/// The eight bytes at `address` of a copied stack.
fn word(copy: StackCopy<'_>, address: u64) -> Option<u64> {
    let offset = usize::try_from(address.checked_sub(copy.start)?).ok()?;
    let bytes = copy.bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// What an ELF file in memory says about itself (elf(5)).
struct Layout {
    bias: u64,
    tables: Option<ExplicitModuleSectionInfo<Vec<u8>>>,
}

/// A program header.
#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    address: u64,
    file_size: u64,
    size: u64,
}

impl Layout {
    fn read(module: &Module) -> Option<Layout> {
        // Headers of ELF64 with up to 50 segments; linkers make a dozen.
        let mut head = [0; 64 + 56 * 50];
        let len = memory::read(module.start, &mut head);
        let head = head.get(..len).filter(|head| head.starts_with(b"\x7fELF\x02\x01"))?;
        let (offset, count) = (u64_at(head, 32)? as usize, u16_at(head, 56)?);
        let segments: Vec<Segment> = (0..usize::from(count))
            .map_while(|index| Segment::read(head.get(offset.checked_add(index * 56)?..)?))
            .collect();
        let loads = || segments.iter().filter(|segment| segment.kind == libc::PT_LOAD);
        let base = loads().next()?.address & !0xfff;
        let bias = module.start.wrapping_sub(base);
        let index = segments.iter().find(|segment| segment.kind == libc::PT_GNU_EH_FRAME);
        let tables = index.and_then(|index| {
            let index_bytes = memory::read_all(bias.wrapping_add(index.address), usize::try_from(index.size).ok()?)?;
            // Version 1, and the address of the tables as a difference in 4 bytes (LSB, "DWARF extensions").
            let ([1, 0x1b], distance) = ([*index_bytes.first()?, *index_bytes.get(1)?], u32_at(&index_bytes, 4)?)
            else {
                return None;
            };
            let start = index
                .address
                .wrapping_add(4)
                .wrapping_add_signed(i64::from(distance as i32));
            // Their length stands nowhere; they end with a zero, and at the latest with their segment.
            let inside = |load: &&Segment| (load.address..load.address + load.file_size).contains(&start);
            let end = loads().find(inside).map(|load| load.address + load.file_size)?;
            let bytes = memory::read_all(bias.wrapping_add(start), usize::try_from(end - start).ok()?)?;
            Some(ExplicitModuleSectionInfo {
                base_svma: base,
                eh_frame_svma: Some(start..end),
                eh_frame: Some(bytes),
                eh_frame_hdr_svma: Some(index.address..index.address + index.size),
                eh_frame_hdr: Some(index_bytes),
                ..ExplicitModuleSectionInfo::default()
            })
        });
        Some(Layout { bias, tables })
    }
}

impl Segment {
    fn read(bytes: &[u8]) -> Option<Segment> {
        Some(Segment {
            kind: u32_at(bytes, 0)?,
            address: u64_at(bytes, 16)?,
            file_size: u64_at(bytes, 32)?,
            size: u64_at(bytes, 40)?,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
