"""Which words of a text are said to be absent: `ceiling fan without light`, `shampoo sulfate-free`, `case not clear`.

Rules for English, on the side of caution: what may be a name or a fixed compound ("no show socks", "non stick pan",
"no 7 serum") negates nothing, because a product that is wrongly thought unwanted is lost, and one that is wrongly
thought wanted is only one hit among others. Nothing is dropped from the text: the encoder reads it whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from app.index.analysis import tokens
from app.types import record

NOT = "¬"
"""Before a term: the text says that this is absent. No token begins so."""
MOST_WORDS = 3  # one cue negates at most so many: "without sodium lauryl sulfate"
_MOST_CUES = 256  # of one text: a candidate's may be 100,000 characters of "no", at some 40 µs each
_REACH = 4 * MOST_WORDS  # words looked at after a cue, articles, joints and hyphens among them
_LONGEST_BEFORE = 64  # characters looked at before a cue: two words


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[^\W_]+(?:['/&+#.][^\W_]+)*|[^\w\s]")
_CUE = re.compile(
    r"(?<![\w'/&+#.])(?:without|w/o|w/out|excluding|lacking|no|not|non|free)(?![\w'/&+#])|(?<=\s)-(?=[^\W\d_]{3})"
)
_HINTS = ("no", "w/o", "free", "excluding", "lacking", "-", "without", "w/out")  # every cue holds one of these
_CUES = frozenset(("without", "w/o", "w/out", "excluding", "lacking"))
_ARTICLES = _set("a an the any my your its")
_JOINTS = frozenset(("and", "or", "nor", "&", "/"))
# What ends the part that a cue negates: another part of the sentence begins.
_BOUNDARIES = _set(
    "for with in on of at from to by as under over inside that which who but if when while because set sets pack "
    "packs size sizes color colour is are so than needed required included attached no not non free"
)
# A cue followed by one of these is a saying, a title or somebody: "without a doubt", "doctors without borders".
_SAYINGS = _set(
    "doubt borders limits limit end fail question questions prejudice remorse cause fear you me him her us them "
    "it this these those what one more less longer other others matter way name idea problem man mans body "
    "brainer show stopper null only just enough included your everyone everything all yet even ever"
)
# "no" and "non" make fixed compounds with verbs and a few nouns; such a product is no product without them.
_COMPOUNDS = _set(
    "slip skid stick drill dig bake burn sew tie rinse spill pull touch fog chip cry tear tears run bend kink "
    "mess fuss wrinkle fade shed scratch glare drip trace contact stop fiction profit profits woven linear bleach "
    "crease fray snag fly clog crush entry parking smoking soliciting trespassing trespass hunting fishing sweat "
    "pinch iron binary conductive abrasive marking stretch sterile vented ducted shrink line lean gap poo peek "
    "throw shear"
)
# "not" after one of these belongs to a sentence: "i will not leave the house", "forget me not".
_BEFORE_NOT = _set(
    "is are am be was were been do does did will would shall should can could must may might has have had of to "
    "or if why me and but it i you we they he she there that this"
)
# Unlike "sulfate-free", two words may be a gift ("samples free"): these are not given away.
_LACKED = _set(
    "acetone acid ad ads additive alcohol allergen aluminum aluminium ammonia aspartame bpa bpas bleach bubble "
    "caffeine carb carbs cage chemical chlorine cholesterol corn cruelty dairy drm dust dye dyes egg fat flicker "
    "fluoride formaldehyde fragrance frizz glare gluten gmo grain hormone lactose latex lead lint meat mercury "
    "msg nickel nitrate nut oil paraben parabens peanut perfume phosphate phthalate preservative preservatives "
    "pvc residue salt scent silicone silicones smoke soap sodium soy streak sugar sulfate sulfates sulphate "
    "sulphates sulfite sulfites talc tangle toxin wheat wire xylitol yeast"
)
_NOT_LACKED = _set("hand hands duty tax toll care royalty post interest rent worry")
_EMPTY = _CUES | {"no", "not", "non", "free"}


@record()
class _Word:
    text: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum()


_NOTHING = _Word(" ", -1, -1)


def negated_terms(text: str) -> tuple[str, ...]:
    """The lexical terms (as `tokens` gives them) that a normalised query wants absent, in order, each once.

    Empty where nothing is negated, and where nothing would be left that is wanted. A term that is wanted elsewhere in
    the text is not among them: `vitamin without vitamin k` negates `k`.
    """
    spans = negated_spans(text)
    if not spans:
        return ()
    wanted, done = [], 0
    for start, end in spans:
        wanted.append(text[done:start])
        done = end
    held = set(tokens(" ".join((*wanted, text[done:])))) - _EMPTY
    negated = dict.fromkeys(term for start, end in spans for term in tokens(text[start:end]))
    return tuple(term for term in negated if term not in held) if held else ()


def denied_terms(text: str) -> list[str]:
    """What a normalised product text says of itself that it lacks, marked, repeats kept: `fan without light` lacks
    `¬light`. The index holds these beside the text's tokens, so that a query's absent word meets a product's."""
    spans = negated_spans(text, operator=False)
    return [NOT + term for start, end in spans for term in tokens(text[start:end])]


def negated_phrases(text: str) -> list[tuple[int, int]]:
    """Where a normalised query negates: [start, end) from the cue to the last word that it negates, or the other way
    round; ascending."""
    found = ((cue, _negated(cue, text)) for cue in _cues(text))
    return [(min(cue.start(), words[0].start), max(cue.end(), words[-1].end)) for cue, words in found if words]


def negated_spans(text: str, *, operator: bool = True) -> list[tuple[int, int]]:
    """Where the negated words of a normalised text are: [start, end) of each, ascending, without overlap. A minus
    before a word is an operator of queries; in a title it is a dash."""
    if not any(map(text.__contains__, _HINTS)):  # sooner known than found
        return []
    cues = (cue for cue in _cues(text) if operator or cue[0] != "-")
    return sorted({(word.start, word.end) for cue in cues for word in _negated(cue, text)})


def _cues(text: str) -> Iterator[re.Match[str]]:
    return islice(_CUE.finditer(text), _MOST_CUES)


def _negated(cue: re.Match[str], text: str) -> list[_Word]:
    after = list(islice(_words(text, cue.end()), _REACH))
    earlier = _words(text, max(0, cue.start() - _LONGEST_BEFORE), cue.start())
    before = [_NOTHING, _NOTHING, *earlier][-2:]
    match cue[0]:
        case "no":
            return _after_no(after) if before[-1] is not _NOTHING else []
        case "not":
            return _after_not(before[-1], after)
        case "non":
            return _after_non(after)
        case "free":
            return _before_free(before, cue.start())
        case "-":
            return after[:1]
        case _:
            return _scope(after)


def _words(text: str, start: int, end: int | None = None) -> Iterator[_Word]:
    found = _WORD.finditer(text, start) if end is None else _WORD.finditer(text, start, end)
    return (_Word(match[0], *match.span()) for match in found)


def _scope(words: list[_Word]) -> list[_Word]:
    """The words that a cue before them negates: up to a boundary, a sign or a number, and so many at most."""
    found: list[_Word] = []
    for at, word in enumerate(words):
        if word.text in _ARTICLES and not found:
            continue
        if word.text in _JOINTS and found:
            following = words[at + 1].text if at + 1 < len(words) else ""
            if following in _BOUNDARIES or following in _CUES:
                break
            continue
        hyphen = word.text == "-" and found and at + 1 < len(words) and found[-1].end == word.start
        if hyphen:
            continue
        if not word.is_word or word.text in _BOUNDARIES or word.text in _CUES or word.text[0].isdigit():
            break
        if word.text in _SAYINGS and not found:
            break
        found.append(word)
        if len(found) == MOST_WORDS:
            break
    return found


def _after_not(before: _Word, words: list[_Word]) -> list[_Word]:
    """`silicone not clear`, to the end of its part of the sentence: else it is a sentence, and may mean anything."""
    if before is _NOTHING or before.text in _BEFORE_NOT or not words or words[0].text in _ARTICLES:
        return []
    scope = _scope(words)
    return scope if _closes(scope, words) else []


def _after_no(words: list[_Word]) -> list[_Word]:
    """`vacuum no wheels` lacks wheels; in `no dig fence` and `no-show socks` the thing comes after: a compound."""
    if not words or not words[0].is_word or words[0].text in _COMPOUNDS:
        return []
    scope = _scope(words)[:2]
    return scope if _closes(scope, words) else []


def _after_non(words: list[_Word]) -> list[_Word]:
    """The one word after `non`, hyphen or not."""
    following = [word for word in words[:2] if word.text != "-"]
    scope = _scope(following)[:1]
    return [] if scope and scope[0].text in _COMPOUNDS else scope


def _before_free(before: list[_Word], free: int) -> list[_Word]:
    """`sulfate-free` whatever it is, but `sulfate free` only for what one does not give away."""
    hyphened = before[1].text == "-" and before[1].end == free and before[0].end == before[1].start
    word = before[0] if hyphened else before[1]
    if not word.is_word or word.text in _NOT_LACKED:
        return []
    return [word] if hyphened or word.text in _LACKED else []


def _closes(scope: list[_Word], words: list[_Word]) -> bool:
    """Whether the part of the sentence ends with the negated words."""
    if not scope:
        return False
    after = words[words.index(scope[-1]) + 1 :]
    return not after or not after[0].is_word or after[0].text in _BOUNDARIES | _CUES | _JOINTS
