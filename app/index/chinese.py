"""What Chinese texts say by the order of their words: what a product is for, and what is only talk.

The head of a Chinese noun phrase comes last: 智能手机保护套 is a cover, and 智能手机 tells for what. Without spaces the
characters of the phone are in both, and a cover's title often names it more often than a phone's. So the words before
an accessory, and after "suits", are other terms than the same words of a product itself; both sides are read alike, so
who asks for 手机壳 meets them whole.
"""

from __future__ import annotations

import re

from app.index.analysis import UNSPACED

MODIFIER = "~"
"""Before a term: it tells what a thing is for. No token begins so."""
_REACH = 4  # characters that an accessory's name is told for: most nouns have two, 智能手机 has four
_SUITED = 8  # characters after "suits"

_has_unspaced = re.compile(f"[{UNSPACED}]").search
# What is bought for something else, the longer names first.
_ACCESSORY = (
    "保护套|保护壳|保护膜|保护袋|钢化膜|水凝膜|防窥膜|移动电源|充电器|充电线|充电头|快充头|充电宝|数据线|适配器|收纳包|收纳盒|收纳袋|替换装|"
    "贴膜|贴纸|外壳|后壳|后盖|支架|底座|挂绳|挂链|内胆|滤芯|滤网|表带|配件|零件|通用|壳|套|膜"
)
_HEAD = re.compile(f"(?P<suits>适用于?|兼容)|(?:{_ACCESSORY})+(?![装餐])")  # 套装 is a set, 套餐 a meal
_BEFORE = re.compile(f"[{UNSPACED}]{{1,{_REACH}}}$")
_AFTER = re.compile(f"[{UNSPACED}]{{1,{_SUITED}}}")
# "I would like to buy a …": the words of asking, at the beginning, and the measure word that belongs to them.
_ASKING = re.compile(
    "^(?:请问)?(?:(?:我|俺|本人)?(?:想要?|需要|打算|准备|要|求)?(?:购买|选购|采购|求购|入手|推荐|想买|要买)|(?:我|俺)?(?:想要|想买|需要)"
    "|哪里(?:有卖|能买到?|可以买到?)|有没有|买(?=[一几两个点]))(?:[一几两1-9]?[部个台款件双条只张把本点种些])? *"
)


def modifier_spans(text: str) -> list[tuple[int, int]]:
    """Where a normalised text tells what something is for: [start, end) of unspaced characters, ascending, without
    overlap."""
    spans: list[tuple[int, int]] = []
    done = 0
    for head in _HEAD.finditer(text) if _has_unspaced(text) else ():
        if head["suits"]:
            found = _AFTER.match(text, head.end())
        else:
            found = _BEFORE.search(text, max(done, head.start() - _REACH), head.start())
        if found is not None and found.start() >= done:
            spans.append(found.span())
        done = max(done, head.end(), found.end() if found else 0)
    return spans


def without_asking(text: str) -> str:
    """A normalised query without the words that only say that something is wanted: 想要购买一部智能手机 is 智能手机. As
    it is where nothing else would be left."""
    rest = _ASKING.sub("", text, count=1)
    return rest if rest.strip() else text
