"""Faults of a grid, each brought about and counted.

    python benchmarks/performance/faults.py [--folder DIR]

A small grid is run undisturbed. Then, in copies of its folder from which some trials are taken out,
real `intentbench run` commands meet a fault each. Counted over the trials that had finished when
the fault came, or whose files it did not touch: *lost*, the record is gone or another one;
*repeated*, begun once more. Over all trials of the end: *wrong*, recorded as done with other ranks
than undisturbed, or where no result can be. The full disk is a tmpfs and needs root.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from intentbench.results.record import TrialRecord
from intentbench.results.store import CHECKPOINT, RANKS, RESULT, load_ranks, load_records

PLUGIN = Path(__file__).parents[2] / "tests" / "runner" / "toy_plugin.py"
BASE = {"method": "sasrec", "width": 8, "heads": 1, "blocks": 1, "loss": "ce"}
ROWS: dict[str, dict[str, object]] = {
    "counts": {},
    "slow": {"method": "toy", "fault": "slow"},
    "base": BASE,
    "above": {"pretrained": "base"},
}
FAULTY = ("raise", "native", "leak", "kill_once", "kill", "clock")
FAILING = ("raise", "native", "leak", "kill")
Finished = dict[Path, tuple[str, int]]


@dataclass(frozen=True)
class Lab:
    """Where faults are tried."""

    root: Path

    @property
    def reference(self) -> Path:
        return self.root / "undisturbed"

    def copy(self, name: str, *without: str, at: Path | None = None) -> Path:
        """The undisturbed runs, but for some rows."""
        out = at or self.root / name
        rows = [f"{row}" for row in without]
        shutil.copytree(
            self.reference, out, ignore=shutil.ignore_patterns(*rows), dirs_exist_ok=True
        )
        return out

    def start(self, out: Path, faults: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """The command; a faulty row stands first."""
        rows = {name: {"method": "toy", "fault": name} for name in faults} | ROWS
        spec: dict[str, object] = {
            "name": "faults",
            "datasets": ["synthetic-tiny"],
            "models": rows,
            "seeds": [0, 1],
            "training": {"max_epochs": 2},
            "data": {"batch_size": 32},
        }
        if faults:
            spec |= {"seeds": [0], "timeout": 60, "memory": "1.5GiB"}
        path = self.root / f"spec{len(faults)}.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        command = [sys.executable, "-m", "intentbench.cli", "run", str(path), "--no-page"]
        command += ["--plugin", str(PLUGIN), "--out", str(out), "--devices", "cpu"]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, start_new_session=True, text=True, stdout=pipe, stderr=subprocess.STDOUT
        )

    def run(self, out: Path, faults: tuple[str, ...] = ()) -> tuple[str, int]:
        """The command to its end: output, exit status."""
        process = self.start(out, faults)
        return process.communicate()[0], process.returncode

    def count(self, name: str, happened: str, before: Finished, out: Path) -> str:
        """A row of the table."""
        after, records = finished(out), dict(load_records(out))
        lost = sum(
            folder not in after or after[folder][0] != before[folder][0] for folder in before
        )
        repeated = sum(attempts(folder) > before[folder][1] for folder in before)
        wrong = sum(self.is_wrong(folder, record, out) for folder, record in records.items())
        return f"| {name} | {happened} | {lost} of {len(before)} | {repeated} | {wrong} |"

    def is_wrong(self, folder: Path, record: TrialRecord, out: Path) -> bool:
        if record.status != "done":
            return False
        like = self.reference / folder.relative_to(out)
        if not like.exists():  # a faulty row; those that recover compute what `slow` does
            rows = (self.reference / "synthetic-tiny" / "slow").glob(f"*/{RESULT}")
            places = {read.parent for read in rows if f'"seed": {record.seed},' in read.read_text()}
            (like,) = places
        same = np.array_equal(load_ranks(folder)["rank"], load_ranks(like)["rank"])
        return record.label in FAILING or not same


def finished(out: Path) -> Finished:
    """Trials that are done: when, and how often they were begun."""
    done = [(folder, record) for folder, record in load_records(out) if record.status == "done"]
    return {folder: (record.finished, attempts(folder)) for folder, record in done}


def attempts(folder: Path) -> int:
    """How often a trial was begun."""
    log = folder / "log.txt"
    return log.read_text().count("--- attempt") if log.exists() else 0


def wait_for(ready: Callable[[], object]) -> None:
    """Poll; give up after minutes."""
    deadline = time.monotonic() + 300
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


def running(out: Path) -> list[int]:
    """Processes of this machine that hold a log of these runs open: workers, and their children."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if str(link.readlink()).startswith(f"{out.resolve()}{os.sep}"):
                found.append(int(link.parts[2]))
        except OSError:
            continue
    return found


def killed_runner(lab: Lab) -> list[str]:
    """The runner is killed while trials run, and started again."""
    out = lab.copy("killed", "slow", "above")
    process, begun = lab.start(out), len(finished(out))
    wait_for(lambda: len(finished(out)) > begun and running(out))
    process.kill()
    process.communicate()
    wait_for(lambda: not running(out))
    before = finished(out)
    text, status = lab.run(out)
    happened = f"workers ended by themselves; the same command: exit {status}, {summary(text)}"
    return [lab.count("SIGKILL of the runner", happened, before, out)]


def interrupted(lab: Lab) -> list[str]:
    """The runner is asked to stop, in the two usual ways."""
    out, rows = lab.copy("interrupted", "slow", "above"), []
    for name, number in (("Ctrl-C", signal.SIGINT), ("SIGTERM of the runner", signal.SIGTERM)):
        process = lab.start(out)
        wait_for(lambda: running(out))
        os.killpg(process.pid, number)  # to all in the foreground; workers are not
        text = process.communicate()[0]
        wait_for(lambda: not running(out))
        before = finished(out)
        again, status = lab.run(out) if name != "Ctrl-C" else ("", 0)
        happened = f"exit {process.returncode}, {text.count('Traceback')} tracebacks, workers ended"
        if again:
            happened += f"; the same command: exit {status}, {summary(again)}"
        rows.append(lab.count(name, happened, before, out))
    return rows


def killed_server(lab: Lab) -> list[str]:
    """The parent of all workers is killed."""
    out = lab.copy("server", "slow")
    process, before = lab.start(out), finished(out)
    wait_for(lambda: running(out))
    worker = Path(f"/proc/{running(out)[0]}/stat").read_text()
    os.kill(int(worker.rpartition(") ")[2].split()[1]), signal.SIGKILL)
    text = process.communicate()[0]
    happened = (
        f"{text.count('later ')} trials begun again; exit {process.returncode}, {summary(text)}"
    )
    return [lab.count("SIGKILL of the process that forks workers", happened, before, out)]


def two_runners(lab: Lab) -> list[str]:
    """The command twice at once."""
    out = lab.copy("two", "slow", "above")
    before, runners = finished(out), [lab.start(out) for _ in range(2)]
    for runner in runners:
        runner.communicate()
    begun = [attempts(folder) for folder in finished(out).keys() - before.keys()]
    statuses = " and ".join(str(runner.returncode) for runner in runners)
    happened = f"exit {statuses}; {len(begun)} trials begun {sum(begun)} times"
    return [lab.count("two runners on one folder", happened, before, out)]


def faulty_trials(lab: Lab) -> list[str]:
    """Trials that go wrong by themselves, all in one grid."""
    out = lab.copy("faulty")
    before = finished(out)
    _, status = lab.run(out, FAULTY)
    names = {
        "raise": "a trial that raises",
        "native": "a trial that hangs in native code, SIGTERM and all, with a child of its own",
        "leak": "a trial that takes more memory than its limit",
        "kill_once": "SIGKILL of a worker, once",
        "kill": "SIGKILL of a worker, twice",
        "clock": "the clock set back by 27 years in a trial",
    }
    wait_for(lambda: not running(out))
    rows = []
    for folder, record in load_records(out):
        if record.label in names:
            ended = f"failed: {record.reason}" if record.reason else "done"
            happened = f"{ended}; begun {attempts(folder)} times; exit {status}"
            rows.append(lab.count(names[record.label], happened, before, out))
    return rows


def damaged_files(lab: Lab) -> list[str]:
    """Files of finished trials are damaged between two runs."""
    out = lab.copy("damaged", "above")
    slow, other = sorted((out / "synthetic-tiny" / "slow").iterdir())
    (counts,) = (out / "synthetic-tiny" / "counts").iterdir()
    base = next((out / "synthetic-tiny" / "base").iterdir())
    cut(slow / RESULT)
    (counts / RESULT).write_bytes(os.urandom(999))
    cut(other / RANKS)
    cut(base / CHECKPOINT)
    touched = (slow, other, counts, base)
    before: Finished = {}
    for path in out.rglob(RESULT):
        if path.parent not in touched:
            before |= finished(path.parent)
    text, status = lab.run(out)
    told = text.count("damaged, set aside")
    kept = len(list(out.rglob("*.damaged")))
    happened = f"{told} named, {kept} files kept aside, made again; exit {status}, {summary(text)}"
    names = (
        "a record cut in half; one of random bytes; ranks cut in half; a checkpoint cut in half "
    )
    return [lab.count(names + "that another row starts from", happened, before, out)]


def full_disk(lab: Lab) -> list[str]:
    """The disk of the runs is full, and then has room again."""
    disk = lab.root / "disk"
    disk.mkdir()
    size = sum(path.stat().st_blocks * 512 for path in lab.reference.rglob("*"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return ["| a full disk | not tried: needs root | | | |"]
    try:
        out = lab.copy("", "slow", "above", at=disk / "runs")
        left = shutil.disk_usage(disk).free // 4096 - 4  # pages
        (disk / "ballast").write_bytes(bytes(left * 4096))
        before = finished(out)
        text, status = lab.run(out)
        failed = text.count("FAILED")
        kept = len(finished(out))
        (disk / "ballast").unlink()
        again, then = lab.run(out)
        happened = (
            f"{failed} failed (no space left), {kept} done stayed, exit {status}; with room: "
            f"exit {then}, {summary(again)}"
        )
        return [lab.count("a full disk", happened, before, out)]
    finally:
        subprocess.run([shutil.which("umount") or "", str(disk)], check=True)


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def summary(text: str) -> str:
    """How many trials the last line of a run counts as finished."""
    return f"{text.count('done  ')} run, {text.count('FAILED')} failed"


def main() -> None:
    """Try all faults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="kept afterwards; else a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        lab = Lab(options.folder or Path(temporary))
        lab.root.mkdir(parents=True, exist_ok=True)
        text, status = lab.run(lab.reference)
        if status:
            sys.exit(text)
        print("| fault | what happened | lost | repeated | wrong |\n|---|---|--:|--:|--:|")
        for fault in (
            faulty_trials,
            killed_runner,
            interrupted,
            killed_server,
            two_runners,
            damaged_files,
            full_disk,
        ):
            print("\n".join(fault(lab)), flush=True)


if __name__ == "__main__":
    main()
