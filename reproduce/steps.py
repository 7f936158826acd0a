"""Commands that run one after another, or side by side, with a log of each."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Job = tuple[str, Callable[[int], None]]


@dataclass
class Steps:
    """Runs commands.

    Args:
        out: folder of everything that is made.
        jobs: trainings and datastores at a time.
        gpus: numbers of the GPUs that they take in turn; none for the CPU.
        dry_run: print the commands, and run none.
    """

    out: Path
    jobs: int = 1
    gpus: Sequence[str] = ()
    dry_run: bool = False

    def together(self, jobs: list[Job]) -> None:
        """Runs jobs side by side, and says how long the rest will take."""
        begun, done = time.time(), 0
        slots = list(range(self.jobs))

        def work(job: Job) -> None:
            nonlocal done
            slot = slots.pop()
            try:
                job[1](slot)
            finally:
                slots.append(slot)
            done += 1
            left = (time.time() - begun) / done * (len(jobs) - done)
            print(f"[{done}/{len(jobs)}] {job[0]}; about {left / 60:.0f} min left", flush=True)

        with ThreadPoolExecutor(self.jobs) as pool:
            results = [pool.submit(work, job) for job in jobs]
            try:
                for result in results:
                    result.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def command(self, name: str, slot: int | None, *command: Any, show: bool = False) -> Path:
        """Runs a command; its output goes to a log, and its table to the terminal if ``show``.

        Args:
            slot: which of the jobs that run side by side; None for a command that has the machine to itself.

        Returns:
            The log.
        """
        words = [str(word) for word in command]
        log = self.out / "logs" / f"{file_name(name)}.log"
        if self.dry_run:
            print(shlex.join(words))
            return log
        log.parent.mkdir(parents=True, exist_ok=True)
        gpu = self.gpus[(slot or 0) % len(self.gpus)] if self.gpus else ""
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        # The commands of this Python's environment, activated or not.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        if not self.gpus and slot is not None:
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.jobs))
        print(f"      {name}: log in {log}", flush=True)
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.run(
                [shutil.which(words[0], path=environment["PATH"]) or words[0], *words[1:]],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        lines = log.read_text(encoding="utf-8").splitlines()
        if process.returncode:
            sys.exit("\n".join([f"{words[0]} failed; the last lines of {log}:", *lines[-20:]]))
        if show:
            print("\n".join(["", *(line for line in lines if line.startswith("|")), ""]), flush=True)
        return log


def file_name(name: str) -> str:
    """A name as that of a file."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", name)
