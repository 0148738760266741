"""Processes that fork after, and while, the library is used."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from guest_helpers import program


def test_fork_after_use() -> None:
    """A context and a plan that several threads have used; children run it, make plans, end by themselves or by os._exit; the parent goes on."""
    program("""
b = batch()
plan = passrl.Plan(rollouts=64, tokens=64 * 512, threads=3)
want = plan.run(**b).advantages.copy()
users = [threading.Thread(target=lambda: plan.run(**b)) for _ in range(4)]
[t.start() for t in users]; [t.join() for t in users]
assert threads_here() >= 3, threads_here()
for round in range(4):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        assert threads_here() == 1
        assert np.array_equal(plan.run(**b).advantages, want) and threads_here() == 1
        assert np.array_equal(passrl.shape(**b, threads=3).advantages, want) and threads_here() == 3
        assert np.array_equal(plan.run(**b).advantages, want)
        if round % 2:
            del plan
            gc.collect()
            os._exit(0)
        sys.exit(0)
    assert np.array_equal(plan.run(**b).advantages, want)
    join_child(pid)
""")


def test_fork_while_another_thread_makes_a_context() -> None:
    """Deterministic: the other thread stands still inside `context`, inside the table of plans and inside a call of a
    known form, where locks would be held."""
    program("""
b = batch()
module, table, ready = sys.modules["passrl.plan"], sys.modules["passrl.shape"], sys.modules["passrl.ready"]
inside, go_on = threading.Event(), threading.Event()
main = os.getpid()

def stand_still():
    if os.getpid() == main and threading.current_thread() is not threading.main_thread():
        inside.set()
        go_on.wait()

class Slow(module.Context):
    def __init__(self, *arguments):
        stand_still()
        super().__init__(*arguments)

class SlowTable(type(table._plans)):
    def setdefault(self, key, value):
        stand_still()
        return super().setdefault(key, value)

class SlowForm(ready.Form):
    def run(self, *arguments):
        stand_still()
        return super().run(*arguments)

for what in ("context", "table", "form"):
    ready._forms.clear()
    if what == "context":
        module.Context = Slow
    elif what == "table":
        module.Context, table._plans = Slow.__mro__[1], SlowTable()
    else:
        table._plans, ready.Form = SlowTable.__mro__[1](), SlowForm
        passrl.shape(**b, threads=3, k=0.25)
    inside.clear(); go_on.clear()
    other = threading.Thread(target=lambda: passrl.shape(**b, threads=3, k=0.25), daemon=True)
    other.start()
    assert inside.wait(20)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        want = passrl.Plan(rollouts=64, tokens=64 * 512, threads=1, k=0.5).run(**b).advantages
        assert np.array_equal(passrl.shape(**b, threads=2, k=0.5).advantages, want)
        assert np.array_equal(passrl.shape(**b, threads=3, k=0.5).advantages, want)
        os._exit(0)
    join_child(pid)
    go_on.set()
    other.join()
""")


def test_fork_at_any_moment_of_others_runs() -> None:
    program("""
b = batch()
want = passrl.shape(**b, threads=1).advantages.copy()
stop = False

def work(n):
    i = 0
    while not stop:
        i += 1
        assert np.array_equal(passrl.shape(**b, threads=2 + (i + n) % 2).advantages, want)
        passrl.Plan(rollouts=8 + i % 50, tokens=64, threads=2)

others = [threading.Thread(target=work, args=(n,)) for n in range(3)]
[t.start() for t in others]
for round in range(25):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        for threads in (1, 2, 3, 4):
            assert np.array_equal(passrl.shape(**b, threads=threads).advantages, want)
        os._exit(0)
    join_child(pid)
stop = True
[t.join() for t in others]
""")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import multiprocessing
import passrl
from guest_helpers import batch

def work(seed):
    return passrl.shape(**batch(seed=seed), threads=2).advantages

if __name__ == "__main__":
    wanted = [work(seed) for seed in range(6)]
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        for found, wanted_one in zip(pool.map(work, range(6)), wanted):
            assert (found == wanted_one).all()
    assert (work(3) == wanted[3]).all()
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
