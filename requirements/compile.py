"""Compile the hash-locked requirements from pyproject.toml, or check that they are current.

    python requirements/compile.py            write every lock, keeping the versions already chosen
    python requirements/compile.py --upgrade  choose the newest versions anew
    python requirements/compile.py --check    compile beside the locks and compare; exit 1 when one is stale, 0 with
                                              a word when no package index can be reached

One universal lock serves CPython 3.11 to 3.13 on every platform in `[tool.uv] environments`. A lock names no registry:
pip takes the artefacts from wherever it is set up to look, and the hashes decide whether they are the right ones.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYPROJECT = HERE.parent / "pyproject.toml"

# In the order in which each may constrain the next, so that one package has one version in all that share it.
LOCKS: dict[str, tuple[list[str], str | None]] = {
    "build": ([str(HERE / "build.in")], None),
    "model": ([str(HERE / "model.in"), "--no-deps"], None),
    "cpu": ([str(PYPROJECT), "--extra=cpu"], None),
    "gpu": ([str(PYPROJECT), "--extra=gpu"], "cpu"),
    "test": ([str(PYPROJECT), "--extra=cpu", "--extra=test"], "cpu"),
    "bench": ([str(PYPROJECT), "--extra=cpu", "--extra=test", "--extra=bench"], "test"),
    "train": ([str(PYPROJECT), "--extra=cpu", "--extra=train"], "test"),
}
# The environments that every line holds for say nothing; what is left of a marker does.
_EVERYWHERE = (
    "((platform_machine == 'arm64' and platform_python_implementation == 'CPython' and sys_platform == 'darwin') "
    "or (platform_machine == 'aarch64' and platform_python_implementation == 'CPython' and sys_platform == 'linux') "
    "or (platform_machine == 'x86_64' and platform_python_implementation == 'CPython' and sys_platform == 'linux'))"
)


class Unreachable(Exception):
    """No package index can be reached from here."""


def plain(lock: str) -> str:
    """The lock without the markers that hold in every supported environment, and without uv's heading."""
    lock = lock.replace(f" and {_EVERYWHERE}", "")
    lock = lock.replace(" and platform_python_implementation == 'CPython'", "")
    lock = re.sub(r" ; python_full_version < '3\.14'(?= \\|$)", "", lock, flags=re.MULTILINE)
    lock = lock.replace(" and python_full_version < '3.14'", "").replace("python_full_version < '3.14' and ", "")
    return re.sub(r"\A(#.*\n)+", "", lock)


def compile_lock(name: str, folder: Path, upgrade: bool) -> str:
    """Compile one lock; `folder` holds the locks that constrain it.

    Raises Unreachable, or SystemExit when nothing resolves."""
    sources, constraint = LOCKS[name]
    out = folder / f"{name}.lock"
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11",
        "--system-certs", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate",
        "--no-header",
        f"--output-file={out}", *sources,
    ]  # fmt: skip
    if constraint:
        command.append(f"--constraints={folder / constraint}.lock")
    if upgrade:
        command.append("--upgrade")
    elif (HERE / out.name).exists() and folder != HERE:
        out.write_text((HERE / out.name).read_text())
    done = subprocess.run(command, check=False, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        if "error sending request" in done.stderr:
            raise Unreachable
        raise SystemExit(done.stderr)
    extras = [word.removeprefix("--extra=") for word in sources if word.startswith("--extra=")]
    heading = f"# {name}: {' + '.join(extras) or f'{name}.in'}. Compiled by `make lock`; do not edit.\n"
    out.write_text(heading + plain(out.read_text()))
    return out.read_text()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--upgrade", action="store_true", help="choose the newest versions")
    arguments = parser.parse_args()
    if not arguments.check:
        for name in LOCKS:
            compile_lock(name, HERE, arguments.upgrade)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        stale = []
        for name in LOCKS:
            path = HERE / f"{name}.lock"
            try:
                current = path.exists() and compile_lock(name, Path(scratch), upgrade=False) == path.read_text()
            except Unreachable:
                print("locks not compared: no package index can be reached from here", file=sys.stderr)
                return 0
            if not current:
                stale.append(path.name)
    if stale:
        print(f"stale: {', '.join(stale)}; run `make lock` and commit what it writes", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
