"""Losses of dual encoders over unit vectors. Every loss is a mean over the batch, a scalar tensor."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def in_batch_softmax(
    queries: Tensor,
    products: Tensor,
    known: Tensor,
    *,
    temperature: float = 0.05,
    negatives: Tensor | None = None,
    symmetric: bool = False,
    duplicate_cosine: float = 1.0,
) -> Tensor:
    """Each query against its own product and everybody else's (van den Oord et al. 2018; Karpukhin et al. 2020).

    `queries`, `products` [n, d] belong together row by row; `known` bool [n, n] marks the products that answer a query,
    which are no negatives for it (its diagonal does not matter). Products nearer to the right one than
    `duplicate_cosine` are taken out too: the same thing sold twice. `negatives` [m, d] are further, mined products, for
    all queries. `symmetric` adds product → query over the same scores.
    """
    scores = queries @ products.T / temperature
    own = torch.eye(len(queries), dtype=torch.bool, device=scores.device)
    excused = known.clone()
    if duplicate_cosine < 1.0:
        excused |= (products @ products.T).detach() >= duplicate_cosine
    excused &= ~own
    target = torch.arange(len(queries), device=scores.device)
    masked = scores.masked_fill(excused, float("-inf"))
    across = masked
    if negatives is not None:
        across = torch.cat([masked, queries @ negatives.T / temperature], dim=1)
    loss = functional.cross_entropy(across, target)
    if symmetric:
        loss = (loss + functional.cross_entropy(masked.T, target)) / 2
    return loss


def listwise_distillation(scores: Tensor, teacher: Tensor, *, temperature: float, teacher_temperature: float) -> Tensor:
    """KL from the teacher's to the student's distribution over the same products, both [n, m] scores (Hinton et al.
    2015; for ranking Hofstätter et al. 2020): graded targets in which no product is plainly wrong."""
    target = functional.softmax(teacher / teacher_temperature, dim=1)
    return functional.kl_div(functional.log_softmax(scores / temperature, dim=1), target, reduction="batchmean")


def embedding_distillation(vectors: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine to the teacher's vectors, both [n, d] unit rows: keeps what the base model knows."""
    return 1.0 - (vectors * teacher).sum(dim=1).mean()


def margin_mse(positive: Tensor, negative: Tensor, teacher_positive: Tensor, teacher_negative: Tensor) -> Tensor:
    """Squared error of the margin between a better and a worse product, all [n]: a cross-encoder's differences are
    worth copying, its absolute scores are not (Hofstätter et al. 2020, Margin-MSE)."""
    return functional.mse_loss(positive - negative, teacher_positive - teacher_negative)


def cosent(scores: Tensor, grades: Tensor, groups: Tensor, *, temperature: float = 0.05) -> Tensor:
    """log(1 + Σ exp((s_j - s_i) / T)) over pairs of one query with grade i above grade j (CoSENT, Su 2022).

    `scores` and `grades` float [n], `groups` int64 [n] the query of each. 0 where no two grades differ.
    """
    above = (grades.unsqueeze(1) > grades) & (groups.unsqueeze(1) == groups)
    differences = ((scores.unsqueeze(0) - scores.unsqueeze(1)) / temperature)[above]
    return torch.logsumexp(torch.cat([differences.new_zeros(1), differences]), dim=0)


def graded_margin(scores: Tensor, grades: Tensor, groups: Tensor, *, margin: float = 0.1) -> Tensor:
    """Hinge over pairs of one query: a grade more asks for `margin` more score. Shapes as in `cosent`."""
    gaps = grades.unsqueeze(1) - grades
    above = (gaps > 0) & (groups.unsqueeze(1) == groups)
    hinges = functional.relu(margin * gaps - (scores.unsqueeze(1) - scores))[above]
    return hinges.mean() if len(hinges) else scores.sum() * 0.0


def weighted_bce(logits: Tensor, labels: Tensor, positive_weight: float | None = None) -> Tensor:
    """Cross-entropy of relevance, logits and labels [n]; a relevant pair weighs `positive_weight`, by default as much
    as makes both classes weigh the same."""
    if positive_weight is None:
        relevant = labels.sum().clamp(min=1.0)
        weight = ((len(labels) - relevant) / relevant).clamp(min=1e-3)
    else:
        weight = logits.new_tensor(positive_weight)
    return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
