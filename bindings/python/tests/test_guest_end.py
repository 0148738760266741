"""The end of the interpreter, and interrupts: exit status 0 and not a word on stderr."""
from __future__ import annotations

import pytest
from guest_helpers import program

ENDS = {
    "daemon threads in runs of a plan": """
b = batch(256, 2048)
plan = passrl.Plan(rollouts=256, tokens=256 * 2048, threads=2)
def work():
    while True:
        plan.run(**b)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
""",
    "daemon threads in shape, which makes and drops plans": """
b = batch()
def work(n):
    i = 0
    while True:
        i += 1
        passrl.shape(**b, threads=2, k=(i % 40) / 100)
for n in range(3):
    threading.Thread(target=work, args=(n,), daemon=True).start()
time.sleep(0.05)
""",
    "a daemon thread in a bound call, everything held by globals": """
b = batch(256, 2048)
plan = passrl.Plan(rollouts=256, tokens=256 * 2048, threads=2)
call = plan.bind(**b)
def work():
    while True:
        call()
threading.Thread(target=work, daemon=True).start()
time.sleep(0.02)
sys.exit(0)
""",
    "exit handlers before and after": """
b = batch()
want = passrl.shape(**b).advantages.copy()
plan = passrl.Plan(rollouts=64, tokens=64 * 512, threads=2)
def last():
    global plan
    assert np.array_equal(plan.run(**b).advantages, want)
    assert np.array_equal(passrl.shape(**b, threads=3).advantages, want)
    plan = None
atexit.register(last)
weakref.finalize(np, print, end="")
atexit.register(lambda: passrl.shape(**b))
""",
    "__del__ at shutdown": """
class Late:
    def __init__(self):
        self.plan, self.shape, self.batch = passrl.Plan(rollouts=64, tokens=64 * 512, threads=2), passrl.shape, batch()
    def __del__(self):
        assert self.plan.run(**self.batch).status == 0
late = Late()
late.me = late
keep = late
sys.late = late
""",
    "a thread that is not a daemon goes on after main": """
b = batch()
want = passrl.shape(**b).advantages.copy()
def work():
    for _ in range(30):
        assert np.array_equal(passrl.shape(**b, threads=2).advantages, want)
threading.Thread(target=work).start()
""",
    "results and calls that nobody drops": """
b = batch()
sys.kept = [passrl.shape(**b), passrl.Plan(rollouts=64, tokens=64 * 512).bind(**b), passrl.Partials(passrl.Plan(rollouts=4, tokens=64))]
kept_too = sys.kept
os.kept = kept_too[0].advantages
""",
}


@pytest.mark.parametrize("name", ENDS)
def test_interpreter_exit(name: str) -> None:
    for _ in range(3 if "daemon threads" in name else 1):
        program(ENDS[name])


def test_first_use_in_an_exit_handler() -> None:
    """The handler that the package's first finalizer registers runs before this one, which was registered earlier."""
    program("""
b = batch()
@atexit.register
def first():
    for _ in range(3):
        passrl.Plan(rollouts=64, tokens=64 * 512, threads=2).run(**b)
    passrl.shape(**b, threads=2)
""")


def test_interrupt_in_a_call() -> None:
    """Ctrl-C in the main thread while it is in the library: the call finishes, then the interrupt is raised, then all is as before."""
    said = program("""
rollouts, tokens = 1024, 4096
b = batch(rollouts, tokens)
plan = passrl.Plan(rollouts=rollouts, tokens=rollouts * tokens, threads=1, whiten="tokens")
out = np.empty((rollouts, tokens), np.float32)
call = plan.bind(**b, out=out)
want = call().advantages.copy()
begin = time.perf_counter()
call()
alone = time.perf_counter() - begin
free = len(plan._free)
caught = 0
for share in (0.2, 0.5):
    out[:] = np.nan
    timer = threading.Timer(alone * share, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    done = False
    try:
        begin = time.perf_counter()
        call()
        done = True
        timer.join()
        time.sleep(0.3)
    except KeyboardInterrupt:
        caught += not done
        assert not np.isnan(out).any() and np.array_equal(out, want), "the call was cut short"
    timer.join()
    assert np.array_equal(call().advantages, want)
    # Temporaries of an interrupted call are given back.
    timer = threading.Timer(alone * share, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        plan.run(**b)
        timer.join()
        time.sleep(0.3)
    except KeyboardInterrupt:
        pass
    timer.join()
    assert np.array_equal(plan.run(**b).advantages, want)
gc.collect()
assert len(plan._free) <= free + 1, (len(plan._free), free)
print(caught, "of 2 while the library was at work,", round(alone, 3), "s a call")
assert caught >= 1
""")
    print(said)
