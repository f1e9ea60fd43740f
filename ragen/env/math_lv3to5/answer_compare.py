"""Whether two answers, read by ``answer_form.py``, are the same. Formulas are compared by sympy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy.core.function import AppliedUndef

from ragen.env.math_lv3to5.answer_form import Brackets, Chain, Form, Listing, Union, Value, Verbatim, Words, approximately, decimal_of, read
from ragen.env.math_lv3to5.answer_tokens import Unreadable
from ragen.env.math_lv3to5.final_answer import final_statements
from ragen.env.math_lv3to5.units import units_differ

_CONVERSION = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
_FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "ne": "ne", "=": "="}
#: a decimal for a number that has none (0.333333 for 1/3) must be right to this share of it, as in math-verify
_ROUNDING = Fraction(2, 10**6)
_POINTS = tuple(tuple(sympy.Rational(p, 997) for p in row) for row in (
    (1409, -613, 2203, 787, -1801), (-1123, 1951, 331, -2609, 1511), (457, 1277, -941, 1693, 2381),
    (2711, 839, 1553, -367, -1187), (-283, -1877, -1667, 2473, 619), (1747, 2131, 1031, 1361, 2887),
))  # fmt: skip


def same_answer(gold: str, pred: str) -> bool:
    """Whether the answer in ``pred`` is the answer in ``gold``. Raises :class:`Unreadable` if one has none."""
    return _same(_collapsed(answer_in(gold)), _collapsed(answer_in(pred)))


def answer_in(text: str) -> Form:
    """The first of a text's final statements that can be read."""
    reason = Unreadable("no answer")
    for statement in final_statements(text):
        try:
            return read(statement)
        except Unreadable as failure:
            reason = failure
    raise reason


# -- structure --------------------------------------------------------------------------------------


def _collapsed(form: Form) -> Form:
    """A chain of equal values (``3+3=6``, ``x=1/3``) without the values before the last. A named one keeps its name."""
    if isinstance(form, Listing):
        items = []
        for item in map(_collapsed, form.items):
            inner = item.parts[0] if isinstance(item, Chain) and item.name else None
            if isinstance(inner, Listing) and not inner.braces:  # x = 1 or 2
                items += [Chain((one,), item.signs, item.name) for one in inner.items]
            else:
                items.append(item)
        return Listing(tuple(items), form.braces)
    if not isinstance(form, Chain) or not set(form.signs) <= {"=", "approx", "in"}:
        return form
    values, signs = form.parts, form.signs if form.name else ("=", *form.signs)
    if not form.name and not _consistent(values, signs):
        if len(values) == 2 and form.signs == ("=",) and any(isinstance(v, Value) and _expression(v).free_symbols for v in values):
            return form  # an equation
        raise Unreadable("a chain that contradicts itself")
    if form.name and not _consistent(values, signs):
        raise Unreadable("a chain that contradicts itself")
    exact = [value for value, sign in zip(values, signs, strict=True) if sign != "approx"] or [approximately(values[0])]
    return Chain((exact[-1],), ("=",), form.name) if form.name else exact[-1]


def _consistent(values: Sequence[Form], signs: Sequence[str]) -> bool:
    first = values[0]
    return all(_about(first, value) if sign == "approx" else _same(first, value) or _is_rounded(first, value)
               for value, sign in zip(values[1:], signs[1:], strict=True))


def _same(gold: Form, pred: Form) -> bool:
    if isinstance(gold, Chain) and gold.name:
        if isinstance(pred, Chain):
            same = pred.name == gold.name and _same(gold.parts[0], pred.parts[0])
            return same or _same_relation(_as_equation(gold), _as_equation(pred))
        return _same(gold.parts[0], pred)
    if isinstance(pred, Chain) and pred.name:
        if not isinstance(gold, Chain):
            return _same(gold, pred.parts[0])
        about_it = any(isinstance(part, Value) and pred.name in part.latex.split() for part in gold.parts)
        return _same_relation(gold, _as_equation(pred)) or about_it and _same_region(gold, pred.parts[0])
    if isinstance(gold, Words | Value) and isinstance(pred, Words | Value) and Words in (type(gold), type(pred)):
        return bool(gold.letters) and gold.letters == pred.letters
    if isinstance(gold, Value) and isinstance(pred, Value):
        return _same_value(gold, pred)
    if isinstance(gold, Value) and gold.decimal and (decimal := decimal_of(pred)) is not None:
        return _expression(gold) == sympy.Rational(decimal.numerator, decimal.denominator)
    if isinstance(gold, Verbatim) and isinstance(pred, Verbatim):
        return gold.parts == pred.parts and not units_differ(gold.unit or pred.unit, pred.unit or gold.unit)
    if isinstance(gold, Chain | Union) or isinstance(pred, Chain | Union):
        return _same_region(gold, pred)
    if isinstance(gold, Brackets) and isinstance(pred, Brackets):
        return gold.ends == pred.ends and _in_order(gold.items, pred.items)
    if isinstance(gold, Listing) or isinstance(pred, Listing):
        return _same_listing(*(form if isinstance(form, Listing) else Listing((form,)) for form in (gold, pred)))
    return False


def _same_listing(gold: Listing, pred: Listing) -> bool:
    if len(gold.items) != len(pred.items):
        return False
    names = [_name(item) for item in gold.items]
    named = any(_name(item) for item in pred.items)
    long_words = any(isinstance(item, Words) and len(item.letters) > 1 for item in gold.items)
    if long_words or len(set(names)) > 1 and not named:  # x = 1, y = 2 answered by 1, 2; names in an order
        return _in_order(gold.items, pred.items)
    left = list(pred.items)
    for item in gold.items:
        place = next((i for i, other in enumerate(left) if _same(item, other)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def _in_order(gold: Sequence[Form], pred: Sequence[Form]) -> bool:
    return len(gold) == len(pred) and all(_same(g, p) for g, p in zip(gold, pred, strict=True))


def _name(form: Form) -> str:
    return form.name if isinstance(form, Chain) else ""


# -- relations and regions --------------------------------------------------------------------------


def _same_region(gold: Form, pred: Form) -> bool:
    """Equations, inequalities, and unions of intervals; an inequality and the interval that it says."""
    if isinstance(gold, Chain) and isinstance(pred, Chain) and _same_relation(gold, pred):
        return True
    unknowns = [_unknowns(form) for form in (gold, pred)]
    if all(unknowns) and unknowns[0] != unknowns[1]:
        return False
    try:
        regions = [_intervals(form) for form in (gold, pred)]
    except Unreadable:
        return False
    return len(regions[0]) == len(regions[1]) and _same_listing(*(Listing(tuple(region)) for region in regions))


def _unknowns(form: Form) -> set[str]:
    """The symbols of a form's relations."""
    parts = form.items if isinstance(form, Listing) else (form,)
    sides = [side for part in parts if isinstance(part, Chain) for side in part.parts if isinstance(side, Value)]
    return {str(symbol) for side in sides for symbol in _expression(side).free_symbols}


def _same_relation(gold: Chain, pred: Chain) -> bool:
    for other in (pred, Chain(pred.parts[::-1], tuple(_FLIPPED.get(s, s) for s in pred.signs[::-1]))):
        if gold.signs == other.signs and (_in_order(gold.parts, other.parts) or _proportional(gold, other)):
            return True
    return False


def _proportional(gold: Chain, pred: Chain) -> bool:
    """Both sides' difference the same up to a constant factor, positive for an inequality."""
    if len(gold.parts) != 2 or len(pred.parts) != 2 or not all(isinstance(p, Value) for p in (*gold.parts, *pred.parts)):
        return False
    first, second = (_expression(c.parts[0]) - _expression(c.parts[1]) for c in (gold, pred))
    if not first.free_symbols or first.free_symbols != second.free_symbols:
        return False
    ratios = [a / b for a, b in _values_at_points(first, second) if b != 0]
    same = len(ratios) >= 3 and all(abs(r - ratios[0]) < 1e-15 * abs(ratios[0]) for r in ratios)
    return same and ratios[0] != 0 and (gold.signs[0] in ("=", "ne") or bool(ratios[0].is_real and ratios[0] > 0))


def _as_equation(chain: Chain) -> Chain:
    """``y = 2x``, where y was taken for a name, with y as a side."""
    return Chain((Value(chain.name), *chain.parts), chain.signs) if len(chain.name) == 1 else chain


def _intervals(form: Form) -> list[Form]:
    """The real intervals that a form says. Raises :class:`Unreadable` if it says none."""
    if isinstance(form, Brackets) and len(form.items) == 2 and form.ends in ("()", "[]", "(]", "[)"):
        return [form]
    if isinstance(form, Union | Listing):
        parts = form.parts if isinstance(form, Union) else form.items
        if isinstance(form, Listing) and not all(isinstance(p, Chain) and not p.name for p in parts):
            raise Unreadable("not a region")
        return [interval for part in parts for interval in ([part] if isinstance(part, Listing) else _intervals(part))]
    if not isinstance(form, Chain) or form.name:
        raise Unreadable("not a region")
    parts, signs = form.parts, form.signs
    low, high = Value("-\\infty"), Value("\\infty")
    if set(signs) <= {">", "ge"}:
        parts, signs = parts[::-1], tuple(_FLIPPED[s] for s in signs[::-1])
    if len(parts) == 2 and signs == ("ne",) and _is_symbol(parts[0]):
        return [Brackets("()", (low, parts[1])), Brackets("()", (parts[1], high))]
    if not set(signs) <= {"<", "le"}:
        raise Unreadable("not a region")
    if len(parts) == 3 and (inside := _absolute(parts[1])) and _is_symbol(inside):  # 1 <= |x| <= 2
        left = Brackets(("[" if signs[1] == "le" else "(") + ("]" if signs[0] == "le" else ")"), (_minus(parts[2]), _minus(parts[0])))
        return [left, *_intervals(Chain((parts[0], inside, parts[2]), signs))]
    if len(parts) == 3 and _is_symbol(parts[1]):
        ends = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
        return [Brackets(ends, (parts[0], parts[2]))]
    if len(parts) == 2 and _is_symbol(parts[0]):
        return [Brackets("()" if signs[0] == "<" else "(]", (low, parts[1]))]
    if len(parts) == 2 and _is_symbol(parts[1]):
        return [Brackets("()" if signs[0] == "<" else "[)", (parts[0], high))]
    raise Unreadable("not a region")


def _absolute(form: Form) -> Value | None:
    found = re.fullmatch(r"\| ([A-Za-z]) \|", form.latex) if isinstance(form, Value) else None
    return Value(found[1]) if found else None


def _minus(form: Form) -> Value:
    if not isinstance(form, Value):
        raise Unreadable("not a number")
    return Value(f"-({form.latex})")


def _is_symbol(form: Form) -> bool:
    return isinstance(form, Value) and isinstance(_expression(form), sympy.Symbol)


# -- values ------------------------------------------------------------------------------------------


def _same_value(gold: Value, pred: Value) -> bool:
    if gold.unit and pred.unit and units_differ(gold.unit, pred.unit):
        return False
    if pred.approximate and not (gold.approximate or gold.decimal):
        return False
    a, b = _expression(gold), _expression(pred)
    if _equal(a, b) or pred.decimal and not gold.percent and not pred.percent and _is_rounded(gold, pred):
        return not (gold.percent ^ pred.percent) or not a.free_symbols
    if gold.percent ^ pred.percent:  # 28% is 0.28, too
        return _equal(a / 100 if gold.percent else a, b / 100 if pred.percent else b)
    return False


def _is_rounded(exact: Form, decimal: Form) -> bool:
    """``0.333333`` for 1/3: right to :data:`_ROUNDING`, where no decimal is exact."""
    if not (isinstance(exact, Value) and isinstance(decimal, Value) and decimal.decimal) or exact.decimal:
        return False
    a, b = _expression(exact), _expression(decimal)
    if a.free_symbols or not a.is_number or a.is_Rational and _terminates(int(a.q)):
        return False
    value = sympy.N(a, 30)
    return bool(value.is_real and abs(value - b) <= abs(value) * sympy.Rational(_ROUNDING.numerator, _ROUNDING.denominator))


def _about(first: Form, second: Form) -> bool:
    """Whether ``first ≈ second`` is true: within one unit of the last of three digits."""
    if not isinstance(first, Value) or not isinstance(second, Value):
        return False
    a, b = (sympy.N(_expression(v), 20) for v in (first, second))
    return bool(a.is_real and b.is_real and abs(a - b) <= abs(a) / 100)


def _terminates(denominator: int) -> bool:
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


@lru_cache(maxsize=512)  # a group's replies share their gold answer
def _expression(value: Value) -> sympy.Basic:
    try:
        found = latex2sympy(value.latex, is_real=True, convert_degrees=False, normalization_config=None, conversion_config=_CONVERSION)
    except Exception as failure:
        raise Unreadable(str(failure)[:100]) from failure
    if not isinstance(found, sympy.Expr | sympy.MatrixBase | sympy.MatrixExpr) or found.has(sympy.nan, sympy.zoo):
        raise Unreadable(f"no value: {value.latex[:100]}")
    if not found.has(sympy.Sum, sympy.Product):
        found = found.subs(sympy.Symbol("i", real=True), sympy.I)
    if isinstance(found, sympy.MatrixExpr | sympy.MatrixBase):
        return sympy.ImmutableMatrix(found.doit())
    # f(x) of an unknown f: a name
    return found.replace(lambda e: isinstance(e, AppliedUndef), lambda e: sympy.Symbol(f"applied {e}", real=True))


def _equal(a: sympy.Basic, b: sympy.Basic) -> bool:
    if isinstance(a, sympy.MatrixBase) or isinstance(b, sympy.MatrixBase):
        return isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase) and a.shape == b.shape and all(
            _equal(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    if a == b:
        return True
    if a.free_symbols | b.free_symbols:
        pairs = _values_at_points(a, b)
        return len(pairs) >= 3 and all(_close(x, y, 1e-20) for x, y in pairs)
    return _same_constant(a, b)


def _same_constant(a: sympy.Basic, b: sympy.Basic) -> bool:
    if a.has(sympy.oo, -sympy.oo) or b.has(sympy.oo, -sympy.oo):
        return sympy.simplify(a) == sympy.simplify(b)
    rough = [sympy.N(x, 20) for x in (a, b)]
    if not all(r.is_number and r.is_finite for r in rough):
        return False
    size = max(map(abs, rough))
    if size > 1e-10 and not _close(*rough, 1e-12):  # a number that is 0 has no digits to compare
        return False
    if size > 1e300:  # exact digits would fill the memory
        return sympy.simplify(a / b) == 1
    exact = [x.doit() for x in (a, b)]
    if all(x.is_Rational for x in exact):
        return exact[0] == exact[1]
    rest = abs((exact[0] - exact[1]).evalf(15, maxn=200))
    return bool(rest <= 1e-90 * size or rest <= 1e-150)


def _close(a: sympy.Basic, b: sympy.Basic, share: float) -> bool:
    return bool(abs(a - b) <= share * max(abs(a), abs(b)))


def _values_at_points(a: sympy.Basic, b: sympy.Basic) -> list[tuple[sympy.Basic, sympy.Basic]]:
    """Values of both at fixed points of both signs, where both are defined."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    found = []
    for row in _POINTS:
        point = {s: row[i % len(row)] + i // len(row) for i, s in enumerate(symbols)}
        values = [sympy.N(x.doit().subs(point), 30) for x in (a, b)]
        if all(v.is_number and v.is_finite for v in values):
            found.append((values[0], values[1]))
        elif any(v.free_symbols for v in values):
            return []  # a sum to n has no value here
    return found
