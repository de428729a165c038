"""A MONAI Label server in a process of its own, on a folder of phantoms."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tools.repository import REPOSITORY

START_S = 600.0  # on a busy machine
ANSWER_S = 900.0


@dataclass
class Server:
    """One server; ``root`` holds everything that it may see: studies, bundles, its temporary files and its log."""

    root: Path
    bundles: list[Path]
    flags: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen | None = field(default=None, repr=False)

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def unfinished(self) -> list[Path]:
        """What requests have in the temporary folder, and is gone when they are answered."""
        return [path for kind in ("infer_*", "upload_*", "tmp*") for path in self.temporary.glob(kind)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.root / "server.log").read_text()

    def start(self) -> None:
        """Start it, and wait until it says where it listens; what a killed one left in its temporary folder goes."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        words = [sys.executable, "-m", "tools.monai_label", "serve", "--studies", str(self.studies), "--device", "cpu"]
        words += [word for bundle in self.bundles for word in ("--bundle", str(bundle))]
        environment = os.environ | {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        with (self.root / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                [*words, "--port", str(self.port), *self.flags],
                cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while "/ serves " not in self.log:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.2)
        line = next(line for line in self.log.splitlines() if "/ serves " in line)
        self.port = int(line.split("/ serves ")[0].rpartition(":")[2])

    def stop(self) -> None:
        """End its process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ask(self, method: str, path: str, **arguments) -> requests.Response:
        """One request."""
        return requests.request(method, self.url + path, timeout=ANSWER_S, **arguments)

    def infer(self, model: str, image: str = "", output: str = "json", files=None, **params) -> requests.Response:
        """One inference; ``params`` as a viewer sends them, and by the headers alone, which is quick."""
        query, sent = {"image": image, "output": output}, {"affine": "none", **params}
        return self.ask(
            "POST",
            f"/infer/{model}",
            params=query,
            data={"params": json.dumps(sent)},
            files=files,
        )
