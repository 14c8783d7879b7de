import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from advgym import registry
from advgym.errors import AdvgymError
from advgym.lib.options import Options, described, fields_of, number, read, takes, told_by
from advgym.lib.spelled import spelled


class Toy(Options, kw_only=True):
    eps: Annotated[float, Meta(gt=0, le=2, description="a radius")]
    steps: Annotated[int, Meta(ge=1, le=9)] = 3
    norm: Literal["linf", "l2"] = "linf"
    fast: bool = False
    words: tuple[str, ...] = ()
    name: str = ""
    free: Annotated[Any, Meta(description="what you like")] = None


@pytest.mark.parametrize(
    ("name", "value", "is_now"),
    [("eps", 1, 1.0), ("eps", "8/255", 8 / 255), ("eps", " 1e-1 ", 0.1), ("eps", 2, 2.0), ("steps", 4.0, 4),
     ("steps", "9", 9), ("norm", "l2", "l2"), ("fast", 1, True), ("fast", "false", False), ("words", "a,b", ("a", "b")),
     ("free", None, None)],
)  # fmt: skip
def test_values_that_fit(name, value, is_now):
    found = getattr(read(Toy, {"eps": 0.5, name: value}), name)
    assert found == is_now and type(found) is type(is_now)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("eps", 0, r"^eps is a number above 0 and at most 2 \(a radius\), not 0$"), ("eps", math.nan, "not nan"),
     ("eps", "1/0", "not '1/0'"), ("eps", True, "not True"), ("eps", None, "not None"), ("eps", math.inf, "not inf"),
     ("steps", 2.5, "^steps is a whole number from 1 to 9, not 2.5$"), ("steps", 10, "not 10"),
     ("steps", False, "not False"), ("norm", "lin", "did you mean 'linf'"), ("norm", 3, "one of linf, l2, not 3"),
     ("fast", 2, "true or false, not 2"),
     ("fast", "yes", "not 'yes'"), ("name", 3, "a string, not 3"), ("epz", 1, "did you mean 'eps'")],
)  # fmt: skip
def test_values_that_do_not(name, value, says):
    with pytest.raises(AdvgymError, match=says):
        read(Toy, {"eps": 0.5, name: value})


def test_whose_option_it_is_and_which_one_is_missing():
    with pytest.raises(AdvgymError, match=r"^steps of a toy is a whole number"):
        read(Toy, {"eps": 1, "steps": 0}, "a toy")
    with pytest.raises(AdvgymError, match="eps of a toy is not given: it is a number above 0"):
        read(Toy, {}, "a toy")


@given(st.one_of(st.floats(), st.integers(), st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_a_number_is_finite_or_none_at_all(value):
    found = number(value)
    assert math.isnan(found) or math.isfinite(found)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        assert found == value or math.isnan(value)


@dataclass(frozen=True)
class Threat:
    constraint: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spec:
    threat: Threat = Threat()


def test_a_factory_is_told_the_struct_and_the_spec_holds_what_was_read():
    @takes(Toy)
    def make(spec, options):
        return spec.threat.constraint, options

    told, options = make(replace(Spec(), threat=Threat({"eps": "1/2", "steps": "2"})))
    assert told == {"eps": 0.5, "steps": 2} and options == Toy(eps=0.5, steps=2) and make.options is Toy


def test_options_in_words():
    assert described(Toy)["eps"] == "a number above 0 and at most 2: a radius"
    assert described(Toy, {"free": 1, "eps": 2}) == {
        "free": "1 by default: what you like", "eps": "a number above 0 and at most 2; 2 by default: a radius",
    }  # fmt: skip


def test_options_behind_a_question_mark():
    assert spelled("m?eps=1/2&words=a+b,c", Toy, "m") == ("m", {"eps": "1/2", "words": "a b,c"})
    assert spelled("m?x=1&eps=2", Toy, "m", others=True) == ("m?x=1", {"eps": "2"})
    for text, says in (("m?eps=1&eps=2", "stands twice"), ("m?epz=1", "did you mean 'eps'")):
        with pytest.raises(AdvgymError, match=says):
            spelled(text, Toy, "m")


@pytest.mark.parametrize("task", registry.built_in_tasks())
def test_every_row_s_constraint_fits_its_struct_and_is_told(task):
    row = registry.task_row(task)[1]
    kind = registry.load(row["make"]).options
    read(kind, row["constraint"])
    assert list(told_by(registry.load(row["make"]), row)) == list(row["constraint"])
    for name, option in fields_of(kind).items():
        assert option.help or option.kind is not Any or isinstance(option.allowed, tuple), (
            f"{task}: {name} tells nothing"
        )
