"""Carry out a Dockerfile's instructions in a plain folder: what can be checked of an image where no engine runs.

Every stage that the target is made of runs in order, in one folder that stands for `/`: COPY copies from a build
context that .dockerignore has cut, RUN runs with the absolute paths of the image moved into the folder, ENV, WORKDIR
and CMD are kept. What it does not show: the base image's own contents, layers, and the isolation of stages.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Folders that the image's instructions name; anything else absolute (sh, tmp) is the machine's own.
_MOVED = re.compile(r"(?<![\w./-])/(opt|src|app|bundles)(?=[/:\s\"']|$)")


@dataclass(frozen=True)
class Stage:
    name: str
    parent: str
    steps: tuple[tuple[str, str], ...]


@dataclass
class Image:
    """What a target came to: its folder, and what its command runs with."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path = Path("/")
    user: str = "0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def stages(dockerfile: str) -> dict[str, Stage]:
    """The stages by name, each with its instructions. Raises ValueError for an instruction that is not known here."""
    lines = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for part in re.split(r"^(?=FROM )", re.sub(r"\\\n", " ", lines), flags=re.MULTILINE)[1:]:
        first, *rest = [line for line in part.splitlines() if line.strip()]
        _, parent, _, name = first.split()
        steps = tuple((word, text.strip()) for word, _, text in (line.partition(" ") for line in rest))
        if strange := {word for word, _ in steps} - _DO.keys():
            raise ValueError(f"unknown instruction {sorted(strange)}")
        found[name] = Stage(name, parent, steps)
    return found


def order(found: dict[str, Stage], target: str) -> list[Stage]:
    """The stages that a target needs, those first that others stand on."""
    stage, needed = found[target], []
    copied = [re.findall(r"--from=(\S+)", text) for word, text in stage.steps if word == "COPY"]
    for name in [stage.parent, *(name for names in copied for name in names)]:
        if name in found:
            needed += [one for one in order(found, name) if one not in needed]
    return [*needed, stage]


def context(source: Path, ignore: str, destination: Path) -> None:
    """Copy what .dockerignore leaves. Patterns: `*`, `!NAME` at the top, `**/PATTERN` at any depth."""
    rules = [line.strip() for line in ignore.splitlines() if line.strip() and not line.startswith("#")]
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    assert rules[0] == "*"
    unwanted = [rule.removeprefix("**/").replace("[cod]", "?") for rule in rules if rule.startswith("**/")]
    destination.mkdir()
    for name in kept:
        if (source / name).is_dir():
            shutil.copytree(source / name, destination / name, ignore=shutil.ignore_patterns(*unwanted))
        elif not any(fnmatch.fnmatch(name, pattern) for pattern in unwanted):
            shutil.copy2(source / name, destination / name)


class Build:
    """One build of one target."""

    def __init__(self, files: Path, root: Path, python: str) -> None:
        self.files, self.image = files, Image(root)
        # The base image's `python`; its folder comes first on the path.
        (root / "usr" / "bin").mkdir(parents=True)
        (root / "usr" / "bin" / "python").symlink_to(python)
        self.image.environment = {
            "PATH": f"{root / 'usr' / 'bin'}:{os.environ['PATH']}",
            **{name: os.environ[name] for name in os.environ if re.match("PIP_|SSL_|.*_proxy$", name)},
        }

    def moved(self, text: str) -> str:
        return _MOVED.sub(lambda match: f"{self.image.root}{match[0]}", text)

    def copy(self, text: str) -> None:
        """COPY [--from=STAGE] SOURCE… DESTINATION; stages share one folder, so between them it must only be there."""
        words = shlex.split(text)
        if words[0].startswith("--from="):
            assert words[1] == words[2], f"COPY {text}: between stages a path keeps its name here"
            assert Path(self.moved(words[1])).exists(), f"COPY {text}: nothing there"
            return
        *sources, last = words
        destination = self.image.directory / self.moved(last)
        for name in sources:
            source = self.files / name
            into = destination / source.name if last.endswith("/") else destination
            into.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, into, dirs_exist_ok=True)
            else:
                shutil.copy2(source, into)

    def run(self, text: str) -> None:
        """RUN under sh, as the image would. Raises CalledProcessError with the output in its notes."""
        try:
            subprocess.run(
                ["sh", "-ec", self.moved(text)], check=True, cwd=self.image.directory, env=self.image.environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        except subprocess.CalledProcessError as error:
            error.add_note(error.stdout[-4000:])
            raise

    def env(self, text: str) -> None:
        known = self.image.environment
        for name, value in re.findall(r"(\w+)=(\S+)", text):
            known[name] = re.sub(r"\$(\w+)", lambda match: known.get(match[1], ""), self.moved(value))

    def workdir(self, text: str) -> None:
        self.image.directory = Path(self.moved(text))
        self.image.directory.mkdir(parents=True, exist_ok=True)

    def user(self, text: str) -> None:
        self.image.user = text.partition(":")[0]

    def command(self, text: str) -> None:
        self.image.command = json.loads(text)

    def health(self, text: str) -> None:
        self.image.health = json.loads(text[text.index("CMD ") + 4 :])

    def nothing(self, text: str) -> None:
        """EXPOSE and STOPSIGNAL say something to an engine only."""


_DO = {
    "COPY": Build.copy, "RUN": Build.run, "ENV": Build.env, "WORKDIR": Build.workdir, "USER": Build.user,
    "CMD": Build.command, "HEALTHCHECK": Build.health, "EXPOSE": Build.nothing, "STOPSIGNAL": Build.nothing,
}  # fmt: skip


def build(repository: Path, target: str, scratch: Path, python: str) -> Image:
    """Carry out `target` of the repository's Dockerfile under `scratch`; `python` is the base image's interpreter."""
    files = scratch / "context"
    context(repository, (repository / ".dockerignore").read_text(), files)
    work = Build(files, scratch / "root", python)
    found = stages((repository / "Dockerfile").read_text())
    for stage in order(found, target):
        for word, text in stage.steps:
            _DO[word](work, text)
    return work.image
