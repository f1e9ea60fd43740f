"""What the shop can sell: kinds of goods, their attributes and options. Made up for this project."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """``name``: what it is. ``attributes``: what can be said of it. ``options``: what the buyer
    chooses. ``price``: lowest and highest, in dollars."""

    name: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    price: tuple[int, int]


#: values of each option; a product offers some of them
OPTIONS: dict[str, tuple[str, ...]] = {
    "color": ("black", "white", "navy", "red", "green", "grey", "beige", "purple", "orange", "teal"),
    "size": ("x-small", "small", "medium", "large", "x-large", "xx-large"),
    "shoe size": ("6", "7", "8", "9", "10", "11", "12"),
    "pack": ("pack of 1", "pack of 2", "pack of 4", "pack of 8", "pack of 12"),
    "flavor": ("vanilla", "chocolate", "lemon", "sea salt", "cinnamon", "berry", "plain"),
    "scent": ("lavender", "citrus", "unscented", "mint", "cedar", "rose"),
    "length": ("3 feet", "6 feet", "10 feet", "15 feet"),
    "capacity": ("64 gb", "128 gb", "256 gb", "512 gb"),
    "width": ("twin", "full", "queen", "king"),
}

_WEAR = ("machine wash", "quick drying", "slim fit", "relaxed fit", "stretch fabric", "moisture wicking", "long sleeve", "button closure")
_CLOTH = ("cotton", "linen", "merino wool", "polyester", "recycled fabric", "organic cotton")
_SHOES = ("non slip", "memory foam", "arch support", "leather sole", "rubber sole", "waterproof", "wide toe box", "lightweight")
_FOOD = ("gluten free", "sugar free", "low sodium", "non gmo", "high protein", "plant based", "resealable bag", "kosher", "dairy free")
_CARE = ("cruelty free", "fragrance free", "paraben free", "for sensitive skin", "long lasting", "natural ingredients", "travel size", "alcohol free")
_GADGET = ("fast charging", "wireless", "noise cancelling", "easy to use", "water resistant", "long battery life", "compact design", "high definition")
_HOME = ("easy to clean", "space saving", "solid wood", "stainless steel", "assembly required", "heavy duty", "dishwasher safe", "eco friendly", "non toxic")
_OUT = ("uv protection", "foldable", "weather resistant", "adjustable strap", "lightweight", "tear resistant", "carrying case")

#: top category -> shelf -> kinds
STOCK: dict[str, dict[str, tuple[Kind, ...]]] = {
    "Clothing": {
        "Tops": (
            Kind("dress shirt", _WEAR + _CLOTH, ("color", "size"), (18, 70)),
            Kind("hooded sweatshirt", _WEAR + _CLOTH, ("color", "size"), (22, 80)),
            Kind("running tee", _WEAR + _CLOTH, ("color", "size"), (12, 45)),
        ),
        "Bottoms": (
            Kind("chino trousers", _WEAR + _CLOTH, ("color", "size"), (25, 90)),
            Kind("yoga leggings", _WEAR + _CLOTH, ("color", "size"), (15, 60)),
        ),
        "Shoes": (
            Kind("walking shoes", _SHOES, ("color", "shoe size"), (30, 120)),
            Kind("ankle boots", _SHOES, ("color", "shoe size"), (40, 160)),
            Kind("house slippers", _SHOES, ("color", "shoe size"), (12, 40)),
        ),
    },
    "Grocery": {
        "Snacks": (
            Kind("granola bars", _FOOD, ("flavor", "pack"), (6, 35)),
            Kind("roasted almonds", _FOOD, ("flavor", "pack"), (8, 45)),
            Kind("rice crackers", _FOOD, ("flavor", "pack"), (4, 25)),
        ),
        "Drinks": (
            Kind("green tea bags", _FOOD, ("flavor", "pack"), (5, 40)),
            Kind("protein shake powder", _FOOD, ("flavor", "pack"), (18, 75)),
        ),
    },
    "Beauty": {
        "Skin care": (
            Kind("face moisturizer", _CARE, ("scent", "pack"), (9, 60)),
            Kind("hand cream", _CARE, ("scent", "pack"), (5, 30)),
            Kind("sun lotion", _CARE, ("scent", "pack"), (8, 35)),
        ),
        "Hair care": (
            Kind("hair conditioner", _CARE, ("scent", "pack"), (7, 40)),
            Kind("dry shampoo", _CARE, ("scent", "pack"), (6, 28)),
        ),
    },
    "Electronics": {
        "Audio": (
            Kind("over ear headphones", _GADGET, ("color",), (30, 250)),
            Kind("bluetooth speaker", _GADGET, ("color",), (20, 180)),
        ),
        "Accessories": (
            Kind("charging cable", _GADGET, ("color", "length"), (6, 30)),
            Kind("memory card", _GADGET, ("capacity",), (9, 90)),
            Kind("phone case", _GADGET, ("color",), (8, 40)),
        ),
    },
    "Home": {
        "Kitchen": (
            Kind("storage jars", _HOME, ("pack", "color"), (12, 60)),
            Kind("frying pan", _HOME, ("color",), (18, 95)),
            Kind("cutting board", _HOME, ("color",), (10, 55)),
        ),
        "Bedroom": (
            Kind("duvet cover", _CLOTH + _HOME[:2], ("color", "width"), (25, 130)),
            Kind("bedside lamp", _HOME, ("color",), (15, 85)),
            Kind("shoe rack", _HOME, ("color",), (18, 90)),
        ),
    },
    "Outdoors": {
        "Camping": (
            Kind("hiking backpack", _OUT, ("color",), (30, 170)),
            Kind("camping chair", _OUT, ("color", "pack"), (20, 110)),
            Kind("picnic blanket", _OUT, ("color",), (12, 50)),
        ),
        "Rain gear": (
            Kind("travel umbrella", _OUT, ("color",), (10, 45)),
            Kind("rain poncho", _OUT, ("color", "size"), (8, 35)),
        ),
    },
}

BRANDS = (
    "Alderway", "Brightnook", "Corvane", "Dunmere", "Eastlark", "Fennholt", "Greywillow", "Harrowby", "Ivorydale", "Junipera",
    "Kestrelle", "Lowmoor", "Marlingford", "Northquay", "Oakhollow", "Pellworth", "Quillan", "Rookhaven", "Silverbeck", "Thornlea",
)  # fmt: skip
