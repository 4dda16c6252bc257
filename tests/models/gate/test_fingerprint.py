"""The second layer: a bundle that no longer behaves as its encoder and its texts say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.index.bundle import BundleStore
from app.index.catalog import Catalog
from app.index.dense import FaissIndex
from app.index.lexical import LexicalIndex
from app.index.product_text import lexical_texts
from app.search.embed import Encoder
from app.search.probes import KEY, Probes, cosines
from app.types import Product
from models.gate import Check, Limits, judge
from models.gate.fingerprint import _probes
from models.parity import PROBE_TEXTS as TEXTS
from tests.models.gate.shop import Shop, first_token_pooling
from tests.models.test_export import SHIPPED


def _checks(shop: Shop, version: str) -> dict[str, Check]:
    return {check.name: check for check in shop.judge(version).checks}


def test_a_wrong_export_that_vouches_for_itself_is_held_to_the_served_one(tiny_shop: Shop) -> None:
    """Its probes come from the very network that is broken. Both say that they hold the same weights, so they must say
    the same of a text; other weights may differ (control)."""
    folder = tiny_shop.other_encoder(first_token_pooling)
    own = Probes.of(json.loads((folder / "encoder.json").read_text()))
    assert own is not None
    broken = Encoder(folder)
    served = Encoder(tiny_shop.encoder)
    broken.description[KEY] = Probes(own.weights, TEXTS, broken.queries(TEXTS)).to_json()
    check = _probes(broken, served, Limits())
    assert check.outcome == "refused"
    assert check.figures["export_mean_cosine"] > 0.999 and check.figures["served_mean_cosine"] < 0.9  # type: ignore[operator]
    broken.description[KEY] = Probes("other weights", TEXTS, broken.queries(TEXTS)).to_json()
    assert _probes(broken, served, Limits()).outcome == "passed"


def test_an_encoder_without_probes_is_held_to_the_served_one_of_the_same_base(tiny_shop: Shop) -> None:
    """Where the description states its base's digest; where it states nothing there is nothing to hold it to."""
    served = Encoder(tiny_shop.encoder)
    folder = tiny_shop.other_encoder(first_token_pooling)
    broken, whole = Encoder(folder), Encoder(tiny_shop.encoder)
    for encoder in (broken, whole):
        del encoder.description[KEY]
    assert _probes(broken, served, Limits()).outcome == "not run"
    for encoder in (broken, whole):
        encoder.description["base"] = {"sha256": "the tiny network's digest"}
    assert _probes(broken, served, Limits()).outcome == "refused"
    assert _probes(whole, served, Limits()).outcome == "passed"
    assert _probes(whole, None, Limits()).outcome == "not run"


def test_probes_that_cannot_be_read_are_refused(tiny_shop: Shop) -> None:
    """Not passed over as if there were none."""

    def spoil(folder: Path) -> None:
        description = json.loads((folder / "encoder.json").read_text())
        (folder / "encoder.json").write_text(json.dumps({**description, KEY: {"texts": {"mug": "?"}}}))

    check = _checks(tiny_shop, tiny_shop.rebuilt(encoder=tiny_shop.other_encoder(spoil)))["probes"]
    assert check.outcome == "refused" and "probes" in check.found


def test_a_tenth_of_the_vectors_in_another_row_is_enough(tiny_shop: Shop) -> None:
    """As after a batch that was written twice; the mean alone would hardly move."""
    vectors = tiny_shop.vectors()
    vectors[:6] = np.roll(vectors[:6], 1, axis=0)
    check = _checks(tiny_shop, tiny_shop.rebuilt(vectors=vectors))["vectors"]
    assert check.outcome == "refused" and check.figures["strays"] >= 4  # type: ignore[operator]


def _negated_index(folder: Path) -> None:
    index = FaissIndex.load(folder)
    FaissIndex.build(np.stack([-index.vector(row) for row in range(len(index))])).save(folder)


def _answers_of_others(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    for one in golden:
        one["ids"] = [f"{product}-of-another-shop" for product in one["ids"]]
    (folder / "golden.json").write_text(json.dumps(golden))


def _words_of_others(folder: Path) -> None:
    catalog = Catalog.load(folder)
    texts = [
        lexical_texts(Product(catalog.id(row), catalog.fields(row)), catalog.schema) for row in range(len(catalog))
    ]
    LexicalIndex.build([*texts[1:], texts[0]]).save(folder)


@pytest.mark.parametrize(
    ("exchange", "checks"),
    [(_negated_index, {"vectors", "index"}), (_words_of_others, {"words"}), (_answers_of_others, {"golden"})],
)
def test_parts_exchanged_after_the_build_are_seen(
    exchange: Callable[[Path], None], checks: set[str], tiny_shop: Shop, tmp_path: Path
) -> None:
    """With digests that agree. The index is not that of the texts (or of the embeddings, where a version keeps them);
    the golden queries are answered otherwise than written."""
    version = tiny_shop.rebuilt()
    shutil.copytree(tiny_shop.store.folder, tmp_path / "b")
    tiny_shop.judge(version)
    store = BundleStore(tmp_path / "b")
    with store.building() as folder:
        shutil.copytree(store.path(version), folder, dirs_exist_ok=True)
        exchange(folder)
        resealed = store.seal(folder, dict(store.verify(version).content))
    assert judge(store, version).outcome == "passed", "the control"
    verdict = judge(store, resealed)
    assert verdict.layers[0] == "fingerprint" and verdict.refused[0].name in checks, verdict.table().text()


def test_probes_are_kept_in_a_byte_a_number(tiny_shop: Shop) -> None:
    """To a cosine above 0.9999, and they survive JSON."""
    vectors = Encoder(tiny_shop.encoder).queries(TEXTS)
    again = Probes.of({KEY: json.loads(json.dumps(Probes("w", TEXTS, vectors).to_json()))})
    assert again is not None and again.texts == TEXTS and again.weights == "w"
    known = vectors.any(axis=1)
    assert cosines(again.vectors, vectors)[known].min() > 0.9999


def test_the_shipped_encoder_is_what_its_own_probes_say() -> None:
    """The fp32 network's vectors, which int8 follows within the bounds of its export."""
    check = _probes(Encoder(SHIPPED), None, Limits())
    assert check.outcome == "passed"
    assert check.figures["export_mean_cosine"] < 0.9999, "not its own int8 vectors"  # type: ignore[operator]
