"""Relevance, measured: judgements and runs in, figures with their uncertainty out.

Two nouns, `Qrels` (what people judged) and `Run` (what a ranker answered), and two verbs::

    qrels = Qrels.load("qrels.tsv")
    a = evaluate(qrels, Run.read_trec("bm25.run"))
    b = evaluate(qrels, Run.read_trec("hybrid.run"))
    comparison = compare(a, b, "ndcg@10")        # difference, 95 % interval, p, wins and losses

A mean is never shown without its interval, nor a difference without its paired test. Needs numpy alone.

    judgements  Queries, Qrels and their files        run        Run, the TREC format, the random baseline
    metrics     one value per query and metric         compare    bootstrap, randomisation test, Holm
    folds       out-of-fold values by query            pointwise  probabilities against labels
    calibration raw score → probability                table      text, Markdown, JSON
"""

from models.relevance.calibration import Link, fit_link
from models.relevance.compare import (
    Comparison,
    Interval,
    bootstrap_interval,
    compare,
    compare_all,
    holm,
    intervals,
    randomisation_p,
)
from models.relevance.folds import Fold, out_of_fold, query_folds
from models.relevance.judgements import JudgementError, Qrels, Queries
from models.relevance.metrics import DEFAULT_METRICS, Evaluation, Gain, evaluate
from models.relevance.pointwise import PairEvaluation, accuracy, brier_skill, calibration_error, evaluate_pairs, mse
from models.relevance.run import Run, RunError, random_order
from models.relevance.table import Table, comparison_table, evaluation_table

__all__ = [
    "DEFAULT_METRICS",
    "Comparison",
    "Evaluation",
    "Fold",
    "Gain",
    "Interval",
    "JudgementError",
    "Link",
    "PairEvaluation",
    "Qrels",
    "Queries",
    "Run",
    "RunError",
    "Table",
    "accuracy",
    "bootstrap_interval",
    "brier_skill",
    "calibration_error",
    "compare",
    "compare_all",
    "comparison_table",
    "evaluate",
    "evaluate_pairs",
    "evaluation_table",
    "fit_link",
    "holm",
    "intervals",
    "mse",
    "out_of_fold",
    "query_folds",
    "random_order",
    "randomisation_p",
]
