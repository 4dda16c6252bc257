"""Chinese in the lexical leg: twenty products and what a shopper asks for, and the larger set where it is at hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from app.index.analysis import normalize_text
from app.index.chinese import modifier_spans, without_asking
from app.index.lexical import LexicalIndex
from models.relevance import Qrels, Queries

PRODUCTS = [
    "小米13 5G智能手机 12GB+256GB 黑色 徕卡光学镜头 全面屏",
    "华为P60 鸿蒙智能手机 全网通 8GB+128GB 羽砂白",
    "诺基亚105 老人机 双卡双待 直板按键手机 超长待机",
    "小米13手机壳 智能手机保护套 液态硅胶 全包防摔 黑色",
    "苹果iPhone14手机钢化膜 高清防指纹 两片装",
    "车载手机支架 智能手机通用 出风口导航支架 重力感应",
    "65W氮化镓充电器 手机快充头 智能分流 适用华为小米苹果",
    "磁吸无线充电宝 10000毫安 智能手机移动电源 便携",
    "西湖龙井茶叶 明前特级绿茶 250g 礼盒装",
    "正山小种红茶 武夷山桐木关 500g 罐装",
    "紫砂茶壶 宜兴纯手工 泡茶壶 功夫茶具 200ml",
    "茶叶罐 陶瓷密封罐 大号 储茶罐",
    "美的电饭煲 4L 家用智能预约 多功能电饭锅",
    "电饭煲内胆 4L 不粘锅胆 适用美的苏泊尔",
    "苏泊尔电热水壶 1.7L 304不锈钢 自动断电烧水壶",
    "电热水壶底座 通用 耦合器 配件",
    "索尼WH-1000XM5 头戴式无线降噪蓝牙耳机 黑色",
    "蓝牙耳机保护套 适用AirPods Pro 硅胶 防摔",
    "不锈钢保温杯 500ml 男士商务水杯 大容量",
    "儿童防晒帽 夏季渔夫帽 男童女童 遮阳帽",
]
QUERIES = {
    "想要购买一部智能手机": (0, 1),
    "智能手机": (0, 1),
    "我想买个电饭煲": (12,),
    "给小米13买个手机壳": (3,),
    "推荐一款绿茶": (8,),
    "电热水壶": (14,),
    "蓝牙耳机": (16,),
    "wh1000xm5耳机": (16,),
    "500毫升保温杯": (18,),
    "哪里有卖手机充电器": (6,),
    "送长辈的茶叶礼盒": (8,),
    "手机支架": (5,),
}


@pytest.fixture(scope="module")
def index() -> LexicalIndex:
    return LexicalIndex.build([(text, text) for text in map(normalize_text, PRODUCTS)])


@pytest.mark.parametrize("query", QUERIES)
def test_the_thing_itself_comes_before_what_is_made_for_it(index: LexicalIndex, query: str) -> None:
    """By words alone: the phone before its case, the cooker before its pot, and the case for who asks for a case."""
    assert index.search(index.parse(normalize_text(query)), 1).rows[0] in QUERIES[query]


def test_every_phone_comes_before_every_accessory(index: LexicalIndex) -> None:
    """Not only the first hit."""
    rows = index.search(index.parse("想要购买一部智能手机"), 20).rows.tolist()
    assert set(rows[:2]) == {0, 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("小米13手机壳 智能手机保护套", ["手机", "智能手机"]),
        ("电饭煲内胆 适用美的苏泊尔", ["电饭煲", "美的苏泊尔"]),
        ("苹果iphone14手机钢化膜", ["手机"]),
        ("鼠标套装 儿童套餐", []),
        ("华为p60 智能手机", []),
        ("phone case", []),
    ],
)
def test_what_a_thing_is_for(text: str, told: list[str]) -> None:
    """Before an accessory and after "suits"; a set is no cover."""
    assert [text[start:end] for start, end in modifier_spans(text)] == told


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("想要购买一部智能手机", "智能手机"),
        ("请问有没有防晒帽", "防晒帽"),
        ("我要买3本书", "书"),
        ("买一个水杯", "水杯"),
        ("购物袋", "购物袋"),
        ("买菜车", "买菜车"),
        ("联想电脑", "联想电脑"),
        ("想念", "想念"),
        ("推荐一款", "推荐一款"),
        ("需要 usb", "usb"),
        ("i want to buy a phone", "i want to buy a phone"),
    ],
)
def test_words_of_asking_are_left_out_of_the_search_for_words(asked: str, wanted: str) -> None:
    """Where something is left, and only at the beginning."""
    assert without_asking(asked) == wanted


def test_queries_of_a_large_chinese_shop_find_their_product(test_data: Path) -> None:
    """zh dev, one right product among 59,870: MRR@10 of the lexical leg is at least 0.70."""
    folder = test_data / "zh_multicpr250"
    with gzip.open(folder / "products.jsonl.gz", "rt", encoding="utf-8") as lines:
        titles = {one["id"]: normalize_text(one["title"]) for one in map(json.loads, lines)}
    ids = sorted(titles)
    index = LexicalIndex.build((titles[one], titles[one]) for one in ids)
    qrels = Qrels.load(folder / "dev.qrels.tsv")
    queries = {name: text for name, text in Queries.load(folder / "dev.queries.tsv").items() if name in qrels}
    ranks = []
    for name, text in queries.items():
        rows = index.search(index.parse(normalize_text(text)), 10).rows.tolist()
        found = [place for place, row in enumerate(rows, 1) if ids[row] in qrels[name]]
        ranks.append(1.0 / found[0] if found else 0.0)
    assert len(ranks) >= 100
    assert np.mean(ranks) >= 0.70
