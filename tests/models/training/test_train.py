"""`aisle train` end to end: each kind learns, comes out as an encoder folder, is built, served and evaluated; a killed
run resumes to the bit."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from scripts.cli import main as aisle
from tests.conftest import ROOT, Client

torch = pytest.importorskip("torch", reason="needs the train extra")

from safetensors.torch import save_file  # noqa: E402 - needs torch

from models.bert import BertConfig, BertEncoder  # noqa: E402
from models.training.train import WORK  # noqa: E402
from models.training.vocabulary import prune  # noqa: E402

WriteRecipe = Callable[..., Path]
SHIPPED = ROOT / "models" / "weights" / "all-MiniLM-L6-v2-int8"
FAST = {"batch": 64, "pool": 300, "train_tokens": 24, "weight_decay": 0.0, "temperature": 0.07}
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "words": {
        "pairs": {"judged": 2},
        "network": {"dimension": 64},
        "training": {**FAST, "epochs": 3, "learning_rate": 0.01},
    },
    "lstm": {
        "pairs": {"judged": 2},
        "network": {"dimension": 48, "hidden": 32, "max_query_tokens": 16, "max_product_tokens": 24},
        "training": {**FAST, "epochs": 5, "learning_rate": 0.005},
    },
    "bert": {
        "pairs": {"judged": 2},
        "network": {"base": "random-bert", "max_query_tokens": 16, "max_product_tokens": 24},
        "training": {**FAST, "epochs": 4, "learning_rate": 0.001, "soup": 0.9},
    },
}


@pytest.fixture(scope="module")
def random_bert(shop: Path) -> Path:
    """A two-layer BERT with seeded random weights over the shop's word pieces."""
    folder = shop / "random-bert"
    folder.mkdir()
    whole = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    tokenizer, old = prune(whole, (shop / "products.jsonl").read_text("utf-8").splitlines())
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {
        "vocab_size": len(old), "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 80,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu", **sizes}))
    torch.manual_seed(7)
    save_file(BertEncoder(BertConfig(**sizes)).state_dict(), folder / "model.safetensors")
    return folder


def trained(recipe: Path, out: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """What `aisle train --json` says."""
    capsys.readouterr()
    assert aisle(["train", str(recipe), "--out", str(out), "--json", *more]) == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


@pytest.mark.parametrize("kind", KINDS)
async def test_an_encoder_is_trained_built_served_and_evaluated(
    kind: str,
    shop: Path,
    random_bert: Path,
    write_recipe: WriteRecipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    client: Client,
) -> None:
    """The loss falls, held-out queries find more than before, and one command each does the rest."""
    out, bundles = tmp_path / "encoder", tmp_path / "bundles"
    report = trained(write_recipe(kind, kind, **KINDS[kind]), out, capsys)
    with (out / WORK / "curve.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert losses[-1] < 0.8 * losses[0]
    assert report["held_out"]["recall@10"] > report["held_out"]["untrained_recall@10"] + 0.1
    assert (out / "product_encoder.onnx").exists() == (kind == "lstm")

    command = [
        "build",
        str(shop / "products.jsonl"),
        "--mapping",
        str(shop / "mapping.toml"),
        "--bundles",
        str(bundles),
    ]
    assert aisle([*command, "--encoder", str(out)]) == 0
    async with client(bundles) as http:
        response = await http.post(
            "/v1/search", json={"query": "ceiling fan without lights", "profile": "dense", "k": 5}
        )
    assert response.status_code == 200, response.text
    assert response.json()["hits"]
    capsys.readouterr()
    judged = [
        "--queries",
        str(shop / "train_positives.queries.tsv"),
        "--qrels",
        str(shop / "train_positives.qrels.tsv"),
    ]
    assert aisle(["evaluate", "--bundles", str(bundles), *judged, "--json"]) == 0
    means = {row["run"]: row["recall@100"]["estimate"] for row in json.loads(capsys.readouterr().out)["table"]}
    assert means["dense"] > means["random-order-catalogue"] + 0.2


def _command(recipe: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "scripts.cli", "train", str(recipe), "--out", str(out), "--json", *more]


def _weights(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / WORK / "checkpoint.pt", weights_only=True)["state"]
    return state


def test_a_run_that_was_killed_resumes_to_the_bit(
    write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle, with dropout, typos and mined negatives: the same weights, optimiser and curve as without.
    The control is a run of another seed, which differs."""
    tables = {
        "noise": {"typos": 0.3, "drops": 0.2},
        "network": {"dimension": 24, "hidden": 16, "dropout": 0.2, "max_query_tokens": 12, "max_product_tokens": 16},
        "training": {**FAST, "batch": 16, "epochs": 3, "train_tokens": 16, "mined": 1, "learning_rate": 0.005,
                     "checkpoint_every": 7, "evaluate_every": 20},
    }  # fmt: skip
    recipe = write_recipe("killed", "lstm", **tables)
    killed, whole, other = tmp_path / "killed", tmp_path / "whole", tmp_path / "other"
    checkpoint = killed / WORK / "checkpoint.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        _command(recipe, killed), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (killed / "encoder.onnx").exists()
    steps_done = _weights(killed)["step"]

    report = trained(recipe, whole, capsys)
    assert 0 < steps_done < report["steps"]
    trained(recipe, killed, capsys, "--resume")
    trained(recipe, other, capsys, "--seed", "1")
    resumed, uninterrupted = _weights(killed), _weights(whole)
    for name, tensor in uninterrupted["weights"].items():
        assert torch.equal(resumed["weights"][name], tensor), name
    moments = [state["optimizer"]["state"] for state in (resumed, uninterrupted)]
    for number, moment in moments[1].items():
        assert all(torch.equal(moments[0][number][name], value) for name, value in moment.items())
    curves = [[{**point, "minutes": 0} for point in state["curve"][1:]] for state in (resumed, uninterrupted)]
    assert curves[0] == curves[1]
    for name in ("encoder.onnx", "product_encoder.onnx", "encoder.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
        assert (killed / name).read_bytes() != (other / name).read_bytes()


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(
    write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights of two recipes in one run would be neither's."""
    quick = {"dimension": 8}, {**FAST, "steps": 2}
    recipe = write_recipe("one", "words", network=quick[0], training=quick[1])
    trained(recipe, tmp_path, capsys)
    assert aisle(["train", str(recipe), "--out", str(tmp_path), "--resume", "--seed", "5"]) == 1
    assert "belongs to another recipe" in capsys.readouterr().err
    assert trained(recipe, tmp_path, capsys, "--resume")["steps"] == 2


def test_time_and_patience_end_a_run(
    write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report says which of them did, and the best weights so far come out; without either the run is done."""
    base = {**FAST, "epochs": 1, "learning_rate": 0.01}
    told = {}
    for name, more in {
        "done": {"steps": 6},
        "time": {"max_minutes": 1e-6},
        "early": {"learning_rate": 1e-12, "evaluate_every": 1, "patience": 2, "epochs": 3},
    }.items():
        recipe = write_recipe(f"end-{name}", "words", network={"dimension": 8}, training={**base, **more})
        told[name] = trained(recipe, tmp_path / name, capsys)
    assert {name: report["stopped"] for name, report in told.items()} == {
        "done": "done",
        "time": "time",
        "early": "early",
    }
    assert told["done"]["steps"] == 6 and told["time"]["steps"] <= 1
    assert told["early"]["steps"] == told["early"]["best_step"] + 2
    assert (tmp_path / "time" / "encoder.onnx").exists()
    recipe = write_recipe("end-time", "words", network={"dimension": 8}, training={**base, "max_minutes": 5})
    assert trained(recipe, tmp_path / "time", capsys, "--resume")["stopped"] == "done"


def test_a_catalogue_without_judgements_can_be_learnt_from(
    shop: Path, write_recipe: WriteRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own titles are the queries then, those held out too."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'name = "bare"\nkind = "words"\n[network]\ndimension = 32\n[training]\nepochs = 2\nlearning_rate = 0.01\n'
    )
    report = trained(recipe, tmp_path / "out", capsys, "--catalogue", str(shop / "products.jsonl"))
    assert report["judged_pairs"] == 0 and report["held_out_pairs"] > 50
    assert report["held_out"]["recall@10"] > report["held_out"]["untrained_recall@10"]


def test_a_recipe_without_a_catalogue_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words that name the option."""
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "bare"\nkind = "words"\n')
    assert aisle(["train", str(recipe), "--out", str(tmp_path / "out")]) == 1
    assert "--catalogue" in capsys.readouterr().err
