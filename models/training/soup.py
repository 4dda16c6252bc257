"""Weights between a base and what was trained from it: most of the gain, little of the forgetting."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def soup(base: Mapping[str, Tensor], trained: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """(1 - share) · base + share · trained, name by name (model soups and WiSE-FT, Wortsman et al. 2022).

    Raises ValueError where the two are not of one network.
    """
    if base.keys() != trained.keys() or any(base[name].shape != trained[name].shape for name in base):
        raise ValueError("only weights of one network can be averaged")
    mixed = {}
    for name, tensor in trained.items():
        mixed[name] = base[name].lerp(tensor, share) if tensor.is_floating_point() else tensor.clone()
    return mixed
