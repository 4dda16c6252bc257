"""The gate before publishing: is this version at least as good as the one that it would replace?

Four layers, cheap first; each looks at what the ones before it cannot see, and all of them run, so that a refusal comes
with the whole table:

    inputs       parts intact, catalogue not older than the served one, as many products, no field lost
    fingerprint  stored vectors and probe texts encoded again; golden queries answered again
    recall       what the index finds of the exact top 100
    relevance    on judged queries, paired with the served version: not worse by more than a margin

A version without judgements passes as `ungated`: the first three layers alone have seen it. `judge` gives the verdict
and changes nothing; whether to publish is for the command to say.
"""

from models.gate.inputs import recorded
from models.gate.judge import judge
from models.gate.judgements import Judgements
from models.gate.limits import Limits
from models.gate.recall import found_share
from models.gate.verdict import LAYERS, Check, Verdict

__all__ = ["LAYERS", "Check", "Judgements", "Limits", "Verdict", "found_share", "judge", "recorded"]
