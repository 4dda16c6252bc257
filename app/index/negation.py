"""Which words of a text are said to be absent: `ceiling fan without light`, `shampoo sulfate-free`, `case not clear`.

Rules for English, on the side of caution: what may be a name or a fixed compound ("no show socks", "non stick pan",
"no 7 serum") negates nothing, because a product that is wrongly thought unwanted is lost, and one that is wrongly
thought wanted is only one hit among others. Nothing is dropped from the text: the encoder reads it whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.index.analysis import tokens

MOST_WORDS = 3  # one cue negates at most so many: "without sodium lauryl sulfate"
_REACH = 4 * MOST_WORDS  # words looked at after a cue, articles, joints and hyphens among them


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORD = re.compile(r"[^\W_]+(?:['/&+#.][^\W_]+)*|[^\w\s]")
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


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum()


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
    held = set(tokens(" ".join((*wanted, text[done:])))) - _CUES - {"no", "not", "non", "free"}
    negated = (term for start, end in spans for term in tokens(text[start:end]))
    return tuple(dict.fromkeys(term for term in negated if term not in held)) if held else ()


def negated_spans(text: str) -> list[tuple[int, int]]:
    """Where the negated words of a normalised text are: [start, end) of each, ascending, without overlap."""
    words = [_Word(match[0], *match.span()) for match in _WORD.finditer(text)]
    return sorted({(word.start, word.end) for word in _negated(words)})


def _negated(words: list[_Word]) -> Iterator[_Word]:
    for at, word in enumerate(words):
        following = words[at + 1 : at + 1 + _REACH]
        if word.text in _CUES:
            yield from _scope(following)
        elif word.text == "no" and at > 0:
            yield from _after_no(following)
        elif word.text == "not" and at > 0 and words[at - 1].text not in _BEFORE_NOT:
            yield from _after_not(following)
        elif word.text == "non":
            yield from _after_non(following)
        elif word.text == "free" and at > 0:
            yield from _before_free(words, at)
        elif word.text == "-" and _is_operator(words, at):
            yield words[at + 1]


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


def _after_not(words: list[_Word]) -> list[_Word]:
    """`silicone not clear`, to the end of its part of the sentence: else it is a sentence, and may mean anything."""
    scope = _scope(words)
    return scope if words and words[0].text not in _ARTICLES and _closes(scope, words) else []


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


def _before_free(words: list[_Word], at: int) -> list[_Word]:
    """`sulfate-free` whatever it is, but `sulfate free` only for what one does not give away."""
    hyphen = words[at - 1].text == "-" and words[at - 1].end == words[at].start
    before = words[at - 2] if hyphen and at > 1 else words[at - 1]
    if not before.is_word or before.text in _NOT_LACKED or (hyphen and before.end != words[at - 1].start):
        return []
    return [before] if hyphen or before.text in _LACKED else []


def _closes(scope: list[_Word], words: list[_Word]) -> bool:
    """Whether the part of the sentence ends with the negated words."""
    if not scope:
        return False
    after = words[words.index(scope[-1]) + 1 :]
    return not after or not after[0].is_word or after[0].text in _BOUNDARIES | _CUES | _JOINTS


def _is_operator(words: list[_Word], at: int) -> bool:
    """`drain -overflow`: a minus that touches a word after it and nothing before."""
    if at == 0 or at + 1 == len(words):
        return False
    before, minus, after = words[at - 1 : at + 2]
    return before.end < minus.start and minus.end == after.start and after.text.isalpha() and len(after.text) > 2
