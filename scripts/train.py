"""aisle train: an encoder from a recipe; needs the `train` extra."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.output import Output
from scripts.readers import open_catalogue

if TYPE_CHECKING:
    from models.training.checkpoint import State
    from models.training.train import Trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, help="TOML file such as models/recipes/lstm.toml")
    parser.add_argument("--out", type=Path, help="encoder folder to make (default: artifacts/<the recipe's name>)")
    parser.add_argument("--catalogue", type=Path, help="learn from this catalogue instead of the recipe's")
    parser.add_argument("--mapping", type=Path, help="its mapping file")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out, if there is one"
    )
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument(
        "--threads",
        type=thread_count,
        default=1,
        help="CPU threads; with more than one a run cannot be repeated to the bit",
    )


def thread_count(text: str) -> int:
    """As argparse takes it: torch ends in a traceback where it is told of none."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of threads, from 1 on")
    return count


def run(arguments: argparse.Namespace, output: Output) -> int:
    try:
        import torch

        from models.graph import ExportError
        from models.training.recipe import RecipeError, load_recipe
        from models.training.train import WORK, train
    except ImportError as error:
        output.warn(f"train needs the train extra: pip install 'aisle[cpu,train]' ({error.name} is missing)")
        return 1
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device")
    cuda = arguments.device != "cpu" and torch.cuda.is_available()
    recipe = load_recipe(arguments.recipe, seed=arguments.seed)
    catalogue = arguments.catalogue or recipe.path(recipe.data.catalogue)
    if catalogue is None:
        raise RecipeError(f"{arguments.recipe}: [data] catalogue is missing, and no --catalogue is given")
    mapping = arguments.mapping if arguments.catalogue else recipe.path(recipe.data.mapping)
    out = arguments.out or Path("artifacts") / recipe.name
    reader = open_catalogue(catalogue, mapping)
    done = 0
    with output.progress("training", unit="steps") as tick:

        def on_step(state: State) -> None:
            nonlocal done
            tick(state.step - done)
            done = state.step

        def begin(steps: int) -> None:
            most = recipe.training.max_minutes
            output.say(f"{recipe.kind} by {arguments.recipe.name}: {steps:,} steps, at most {most:g} minutes")

        try:
            trained = train(
                recipe,
                reader.products(),
                reader.schema,
                out,
                device=torch.device("cuda" if cuda else "cpu"),
                resume=arguments.resume,
                begin=begin,
                on_step=on_step,
            )
        except ExportError as error:
            output.warn(str(error))
            return 1
    output.result({"out": str(out), **trained.report}, _text(trained, out, out / WORK))
    return 0


def _text(trained: Trained, out: Path, work: Path) -> str:
    report = trained.report
    held = report["held_out"]
    lines = [
        f"{out}: {report['kind']} encoder, {report['steps']} steps in {report['minutes']:.1f} min ({report['stopped']})"
    ]
    if held["recall@10"] is not None:
        lines.append(
            f"held-out recall@10 {held['untrained_recall@10']:.3f} untrained, {held['recall@10']:.3f} at step "
            f"{report['best_step']}"
        )
    lines += [f"curve: {work / 'curve.html'}", f"serve it: aisle build CATALOGUE --bundles DIR --encoder {out}"]
    return "\n".join(lines)
