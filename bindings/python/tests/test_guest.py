"""The package in a process that has other things to do: threads, memory that goes away, copies of the library, locales; nothing left behind."""
from __future__ import annotations

import gc
import os
import shutil
import subprocess
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guest_helpers import batch, program

import passrl


def test_threads_and_many_plans() -> None:
    """One plan by many threads, more configurations than are kept, plans made and dropped all the while: the bits of a serial run."""
    program("""
b = batch()
ks = [n / 20 for n in range(20)]
want = [passrl.Plan(rollouts=64, tokens=64 * 512, threads=1, k=k).run(**b).advantages for k in ks]
shared = [passrl.Plan(rollouts=64, tokens=64 * 512, threads=1 + n % 3, k=k) for n, k in enumerate(ks[:3])]
stop, counts, wrong = time.monotonic() + 1.5, [0, 0, 0], []

def same(found, n):
    if not np.array_equal(found, want[n]):
        wrong.append(n)

def work(seed):
    random = np.random.default_rng(seed)
    while time.monotonic() < stop:
        n, kind = int(random.integers(20)), seed % 3
        counts[kind] += 1
        if kind == 0:
            same(shared[n % 3].run(**b).advantages, n % 3)
        elif kind == 1:
            same(passrl.shape(**b, k=ks[n], threads=1 + n % 4).advantages, n)
        else:
            plan = passrl.Plan(rollouts=64, tokens=64 * 512, threads=2, k=ks[n])
            call = plan.bind(**b)
            del plan
            same(call().advantages, n)

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(9)]
[t.start() for t in threads]; [t.join() for t in threads]
assert not wrong, wrong
assert min(counts) > 10, counts
assert len(sys.modules["passrl.shape"]._plans) <= 16
""")


class Lender:
    """Speaks DLPack alone, through an array that nobody else holds."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize("wrap", [np.array, lambda values: Lender(np.array(values))], ids=["numpy", "dlpack"])
def test_a_bound_call_holds_its_arrays(wrap: Any) -> None:
    """Inputs, output and plan go out of the caller's hands; their memory stays until the call does."""
    b = batch()
    want = passrl.shape(**b).advantages.copy()
    plan = passrl.Plan(rollouts=64, tokens=64 * 512)
    given = {name: wrap(value) if isinstance(value, np.ndarray) else value for name, value in b.items()}
    out = np.empty((64, 512), np.float32)
    watched = [weakref.ref(getattr(value, "values", value)) for value in given.values() if not isinstance(value, int)] + [weakref.ref(out)]
    call = plan.bind(**given, out=out)
    del plan, given, out
    gc.collect()
    junk = [np.full((64, 512), np.nan, np.float32) for _ in range(20)]
    assert all(ref() is not None for ref in watched)
    assert np.array_equal(call().advantages, want)
    # And no longer.
    del call, junk
    gc.collect()
    assert all(ref() is None for ref in watched)


def test_lists_become_arrays_that_stay() -> None:
    call = passrl.Plan(rollouts=4, tokens=16).bind(signal=np.arange(16, dtype=np.float32), lengths=[4, 4, 4, 4], group_size=2, outcome=[1, 0, 1, 0])
    gc.collect()
    want = call().advantages.copy()
    junk = [np.zeros(4) for _ in range(1000)] + [np.zeros(16, np.float32) for _ in range(1000)]
    assert np.array_equal(call().advantages, want) and junk


def test_a_result_outlives_everything() -> None:
    b = batch()
    shaped = passrl.Plan(rollouts=64, tokens=64 * 512, threads=2, k=0.3).run(**b)
    want = {name: np.copy(getattr(shaped, name)) for name in ("advantages", "num_chunks", "rollout_flags", "path_scores")}
    b.clear()
    gc.collect()
    junk = [np.full((64, 512), np.nan) for _ in range(20)]
    for name, value in want.items():
        assert np.array_equal(getattr(shaped, name), value), name
    assert shaped.report.rollouts == 64 and "process_0" in shaped.stats and junk


def test_a_plan_outlives_its_context() -> None:
    program("""
b = batch()
want = passrl.shape(**b).advantages.copy()
plan = passrl.Plan(rollouts=64, tokens=64 * 512, threads=3)
partials = passrl.Partials(plan)
context = weakref.ref(plan._context)
plan._context = None
sys.modules["passrl.plan"]._contexts.clear()
sys.modules["passrl.shape"]._plans.clear()
sys.modules["passrl.ready"]._forms.clear()
gc.collect()
assert context() is None and threads_here() == 3, threads_here()
assert np.array_equal(plan.run(**b).advantages, want)
del plan, partials
gc.collect()
assert threads_here() == 1, threads_here()
""")


def test_read_only_memory_is_only_read(tmp_path: Path) -> None:
    """A file mapped for reading: a write to an input would end the process."""
    b = batch()
    np.save(tmp_path / "signal.npy", b["signal"])
    mapped = np.load(tmp_path / "signal.npy", mmap_mode="r")
    assert np.array_equal(passrl.shape(**(b | {"signal": mapped}), whiten="tokens").advantages, passrl.shape(**b, whiten="tokens").advantages)
    with pytest.raises(passrl.Error, match="read-only|not writ"):
        passrl.shape(**b, out=mapped)


def test_collections_at_every_allocation() -> None:
    program("""
b = batch(16, 32)
want = passrl.shape(**b).advantages.copy()
refused = 0
kept = passrl.Plan(rollouts=16, tokens=512)
class Cycle:
    def __init__(self):
        self.me, self.plan, self.call = self, passrl.Plan(rollouts=16, tokens=512, threads=2), kept.bind(**b)
    def __del__(self):
        # The collector may have ended the plan and the call before: that is refused with a sentence.
        global refused
        for use in (lambda: self.plan.run(**b), self.call):
            try:
                assert np.array_equal(use().advantages, want)
            except passrl.ArgumentError as fault:
                assert "is NULL" in str(fault), fault
                refused += 1
        assert np.array_equal(passrl.shape(**b, k=0.7).advantages, want)
gc.set_threshold(1, 1, 1)
for n in range(60):
    Cycle()
    assert np.array_equal(kept.run(**b).advantages, want)
    assert np.array_equal(passrl.shape(**b, threads=1 + n % 3).advantages, want)
    plan = passrl.Plan(rollouts=16, tokens=512, k=n / 60)
    plan.bind(**b)()
    try:
        plan.run(**b, signl=1)
    except passrl.Error:
        pass
gc.collect()
print(refused)
""")


def test_nothing_stays_behind() -> None:
    """Plans, calls, results, refusals, partials and threads by the thousand: no thread, descriptor, object, finalizer or memory more."""
    program("""
b = batch(16, 32)
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

def cycle(n):
    plan = passrl.Plan(rollouts=16, tokens=512, threads=2, k=(n % 97) / 97)
    plan.run(**b)
    passrl.shape(**b, k=(n % 89) / 89)
    partials = passrl.Partials(plan)
    dense = {name: value for name, value in b.items() if name != "group_size"} | {"groups": np.repeat(np.arange(2), 8)}
    for phase in range(partials.phases):
        partials.add(phase, **dense)
    partials.apply(**dense)
    for wrong in ({"outcome": np.ones(3)}, {"signal": 5}, {"k": 99}):
        try:
            passrl.shape(**(b | wrong))
        except passrl.Error:
            pass

def threads(n):
    many = [threading.Thread(target=cycle, args=(n + i,)) for i in range(4)]
    [t.start() for t in many]; [t.join() for t in many]

def context(n):
    module = sys.modules["passrl.plan"]
    made, usual = module.Context(1, 0, 3), module.context
    module.context = lambda *_: made
    plan = passrl.Plan(rollouts=16, tokens=512)
    module.context = usual
    assert threads_here() >= 3
    del made, plan

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

c = ctypes.CDLL(None)
def heap():
    # Bytes that are out, of the C library's allocator (NumPy's and the library's; Python's objects have another).
    if not hasattr(c, "mallinfo2"):
        return 0
    c.mallinfo2.restype = Mallinfo
    found = c.mallinfo2()
    return found.uordblks + found.hblkhd

for what, times, warm in ((cycle, 300, 100), (threads, 30, 25), (context, 300, 100)):
    for n in range(warm):
        what(n)
    gc.collect()
    def counted():
        return threads_here(), len(os.listdir("/proc/self/fd")), len(weakref.finalize._registry), len(gc.get_objects())
    before, held, out = counted(), memory(), heap()
    for n in range(times):
        what(n)
    gc.collect()
    after, grown = counted(), memory() - held
    assert after[:3] == before[:3], (what.__name__, before, after)
    # One object a call would be 30 at least; the interpreter's own come and go by a few.
    assert after[3] - before[3] < max(times / 4, 20), (what.__name__, before, after)
    assert grown < 4 << 20, (what.__name__, grown)
    # The interpreter's own tables double now and then.
    assert heap() - out < max(times * 100, 1 << 17), (what.__name__, heap() - out)
""")


def test_copies_closed_and_opened_again(tmp_path: Path) -> None:
    """Another file of the library beside the package's, both global; dlclose and back, by ctypes."""
    copy = tmp_path / "libpassrl_other.so"
    shutil.copy(passrl.library_path, copy)
    program("""
import _ctypes
b = batch()
want = passrl.shape(**b, threads=2).advantages.copy()
ctypes.CDLL(str(passrl.library_path), mode=ctypes.RTLD_GLOBAL)
for n in range(20):
    other = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
    other.passrl_last_error.restype = ctypes.c_char_p
    handle = ctypes.c_void_p()
    assert other.passrl_config_init(None, 0) < 0 and b"passrl_config_init" in other.passrl_last_error()
    assert other.passrl_context_create(None, ctypes.byref(handle)) == 0
    assert np.array_equal(passrl.shape(**b, threads=2).advantages, want)
    assert passrl._ffi.last_error() == ""
    other.passrl_context_destroy(handle)
    _ctypes.dlclose(other._handle)
# The package in a second life, on the other file.
os.environ["PASSRL_LIBRARY"] = sys.argv[1]
for name in [name for name in sys.modules if name.partition(".")[0] == "passrl"]:
    del sys.modules[name]
import passrl as again
assert again is not passrl and np.array_equal(again.shape(**b, threads=2).advantages, want)
_ctypes.dlclose(passrl._ffi._library._handle)
assert np.array_equal(passrl.shape(**b, threads=2).advantages, want)
""", str(copy))


@pytest.fixture(scope="module")
def comma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a locale whose decimal point is a comma."""
    folder = tmp_path_factory.mktemp("locales")
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")], capture_output=True).returncode in (0, 1)
    if not made or not (folder / "de_DE.UTF-8").is_dir():
        pytest.skip("no comma locale: localedef with the source of de_DE (Debian: locales) is missing")
    return folder


def test_a_comma_locale_changes_no_text(comma: Path) -> None:
    told = """
config = passrl.Config("pass", k="0.875", gamma=0.25, clip="1e3")
assert (config.k, config.gamma, config.clip) == (0.875, 0.25, 1000.0)
try:
    config.set("k", "0,875")
    raise SystemExit("a comma is no decimal point")
except passrl.ArgumentError as fault:
    print(fault)
try:
    passrl.Config(k=8.5)
except passrl.Error as fault:
    print(fault)
plan = passrl.Plan(config, rollouts=4, tokens=100)
print(config, repr(plan), plan.run(signal=np.float32([1, np.inf]), lengths=[2], group_size=1).message, sep="\\n")
"""
    german = "import locale\nassert locale.setlocale(locale.LC_ALL, 'de_DE.UTF-8')\nassert locale.localeconv()['decimal_point'] == ','\n"
    assert program(german + told, environment={"LOCPATH": str(comma)}) == program(told)


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    """Handlers, masks, environment, folder, descriptors 1 and 2, NumPy's error state; with findings and refusals."""
    said = program("""
# The C library has handlers of its own from a process's first thread on.
threading.Thread(target=int).start()
def state():
    handlers = [signal.getsignal(n) for n in signal.valid_signals()]
    status = [line for line in open("/proc/self/status") if line[:3] == "Sig" and line[:4] != "SigQ"]
    return handlers, status, dict(os.environ), os.getcwd(), os.umask(os.umask(0)), np.geterr(), signal.pthread_sigmask(signal.SIG_BLOCK, []), sys.excepthook
before = state()
for threads in (0, 1, 3):
    b = batch(256, 2048, threads)
    b["signal"][0, 0] = np.nan
    b["outcome"][9] = np.inf
    assert passrl.shape(**b, threads=threads, whiten="tokens").status > 0
    for wrong in ({"strict": True}, {"chunk": "bad"}, {"backend": "cuda"}):
        try:
            passrl.shape(**(b | wrong), threads=threads)
            raise SystemExit("not refused")
        except passrl.Error:
            pass
for was, now in zip(before, state()):
    assert was == now, (was, now)
# A host that waits for a signal gets it, whatever threads the library has.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for n in range(20):
    os.kill(os.getpid(), signal.SIGUSR1)
    passrl.shape(**b, threads=3)
    assert signal.sigtimedwait([signal.SIGUSR1], 5).si_signo == signal.SIGUSR1
""")
    assert said == ""
