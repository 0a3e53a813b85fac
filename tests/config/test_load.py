import dataclasses
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import MISSING

from kg4d.config import load
from kg4d.config.load import expand, load_config, to_yaml
from kg4d.errors import InputError


class Kind(StrEnum):
    AUTO = "auto"
    TWO_WORDS = "a+d"
    OFF = "off"


class Level(Enum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Term:
    weight: float = 1.0
    kind: Kind = Kind.AUTO
    enabled: bool = True


@dataclass
class Model:
    term: Term = field(default_factory=Term)
    sizes: list[int] = field(default_factory=lambda: [8, 8])
    limit: int | None = None
    level: Level = Level.LOW


@dataclass
class Toy:
    name: str = "toy"
    seed: int = 0
    seeds: list[int] = field(default_factory=list)
    scene: str = "fox"
    scenes: list[str] = field(default_factory=list)
    variants: dict[str, list[str]] = field(default_factory=dict)
    model: Model = field(default_factory=Model)
    kinds: list[Kind] = field(default_factory=list)
    steps: int = 10

    def __post_init__(self) -> None:
        if self.steps > 100:
            raise ValueError(f"steps must be <= 100, got {self.steps}")


@dataclass
class Signed:
    SIGNED: ClassVar[tuple[str, ...]] = ("offset",)

    offset: float = 0.0
    below: float = 0.0


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> str:
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_text(text)
        return name

    return write


def test_no_file_and_an_empty_file_give_the_defaults(write):
    assert load_config(Toy, None) == Toy() == load_config(Toy, write("empty.yaml", ""))


def test_file_and_command_line_become_real_dataclasses(write):
    path = write("a.yaml", "name: a\nmodel:\n  term: {weight: 1e-3, kind: a+d}\n  sizes: [1, 2, 3]\n")
    config = load_config(Toy, path, ["steps=5e1", "model.term.enabled=false", "model.level=2", "kinds=[auto, a+d]"])
    term = Term(0.001, Kind.TWO_WORDS, enabled=False)
    model = Model(term=term, sizes=[1, 2, 3], level=Level.HIGH)
    assert config == Toy(name="a", steps=50, model=model, kinds=[Kind.AUTO, Kind.TWO_WORDS])
    assert type(config.model.term) is Term
    assert type(config.model.term.kind) is Kind


def test_the_last_word_wins(write):
    write("far/base.yaml", "name: base\nsteps: 1\nmodel: {limit: 1, sizes: [9]}\n")
    write("near/middle.yaml", "extends: ../far/base.yaml\nsteps: 2\nmodel: {limit: 2}\n")
    path = write("top.yaml", "extends: near/middle.yaml\nsteps: 3\n")
    config = load_config(Toy, path, ["seed=4", "seed=5"])
    assert (config.name, config.steps, config.model.limit, config.model.sizes, config.seed) == ("base", 3, 2, [9], 5)


def test_extends_falls_back_to_the_presets(write, monkeypatch, tmp_path):
    write("presets/common.yaml", "steps: 7\n")
    write("presets/both.yaml", "steps: 8\n")
    write("mine/both.yaml", "steps: 9\n")
    monkeypatch.setattr(load, "packaged_configs", lambda: tmp_path / "presets")
    assert load_config(Toy, write("mine/a.yaml", "extends: common.yaml")).steps == 7
    assert load_config(Toy, write("mine/b.yaml", "extends: both.yaml")).steps == 9


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("name=007", "name", "007"),
        ("name=no", "name", "no"),
        ("name='a b'", "name", "a b"),
        ("name=a=b", "name", "a=b"),
        ("name=a: [b", "name", "a: [b"),
        (" name = x ", "name", "x"),
        ("kinds=[]", "kinds", []),
        ("variants={a: [seed=1]}", "variants", {"a": ["seed=1"]}),
        ("variants.a=[seed=1]", "variants", {"a": ["seed=1"]}),
        ("name=${steps}", "name", "10"),
    ],
)
def test_values_of_the_command_line(override: str, key: str, value: object):
    assert getattr(load_config(Toy, None, [override]), key) == value


def test_enums_and_optionals_from_the_command_line(write):
    model = load_config(Toy, write("a.yaml", "model: {limit: 3}"), ["model.limit=null", "model.term.kind=off"]).model
    assert model.limit is None
    assert model.term.kind is Kind.OFF


@pytest.mark.parametrize("written", ["a+d", "two_words"])
def test_an_enum_is_named_by_its_value_or_its_name_and_written_back_by_its_value(write, written: str):
    toy = load_config(Toy, write("a.yaml", f"model: {{term: {{kind: {written}}}}}"))
    assert toy.model.term.kind is Kind.TWO_WORDS
    assert "kind: a+d" in to_yaml(toy)


@pytest.mark.parametrize(
    ("text", "where", "what", "remedy"),
    [
        ("model: {term: {wieght: 1}}", "model.term.wieght", "unknown key", "did you mean `model.term.weight`?"),
        ("stepss: 1", "stepss", "unknown key", "did you mean `steps`?"),
        ("term_weight: 1", "term_weight", "unknown key", "did you mean `model.term.weight`?"),
        ("qq: 1", "qq", "unknown key", "choose from name, seed, "),
        ("1: 2", "1", "unknown key", "choose from name"),
        ("model: {term: {weight: {x: 1}}}", "model.term.weight.x", "unknown key", "did you mean `model.term.weight`?"),
        (
            "model: {term: {kind: atuo}}",
            "model.term.kind",
            "'atuo' is not one of auto, a+d, off",
            "did you mean `auto`?",
        ),
        ("kinds: [auto, zz]", "kinds[1]", "'zz' is not one of auto, a+d, off", "choose from auto, a+d, off"),
        ("model: 3", "model", "3 is not a block of settings", "set what is in it, `model.<name>`"),
        ("model:", "model", "None is not a block of settings", "`model.<name>`"),
        ("variants: [a]", "variants", "['a'] is not a block of settings", "`variants.<name>`"),
        ("seeds: 3", "seeds", "3 is not a list", "write [3]"),
        ("seeds: [a]", "seeds[0]", "'a' is not a whole number", "give a whole number"),
        ("steps: 1.5", "steps", "1.5 is not a whole number", "give a whole number"),
        ("steps: true", "steps", "True is not a whole number", "give a whole number"),
        ("steps: '5'", "steps", "'5' is not a whole number", "give a whole number"),
        ("steps:", "steps", "None is not a whole number", "give a whole number"),
        ("name: 2024", "name", "2024 is not text", "put it in quotes"),
        ("model: {term: {weight: high}}", "model.term.weight", "'high' is not a number", "give a number"),
        ("model: {term: {enabled: 1}}", "model.term.enabled", "1 is not true or false", "give true or false"),
        ("extends: 3", "extends", "3 is not a path", "name one YAML file"),
        ("extends: gone.yaml", "extends", "no file gone.yaml", "looked for gone.yaml and "),
        ("name: ${nope}", "name", "Interpolation key 'nope' not found", "correct the ${...}"),
        ("name: ${steps", "", "is not valid YAML", "correct it"),
        ("steps: 101", "", "steps must be <= 100, got 101", "change that value"),
        ("- a", "", "holds no `key: value` lines", "write some"),
        ("steps: [1", "", "is not valid YAML", "correct it"),
        ("steps: 1\nsteps: 2", "", "found duplicate key steps", "correct it"),
    ],
)
def test_a_wrong_file_is_named_with_the_key_and_a_remedy(write, text: str, where: str, what: str, remedy: str):
    with pytest.raises(InputError) as caught:
        load_config(Toy, write("bad.yaml", text))
    assert str(caught.value.where) == (f"bad.yaml: {where}" if where else "bad.yaml")
    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "where", "what"),
    [
        ("steps", "steps", "is not key=value"),
        ("steps=", "steps=", "is not key=value"),
        ("=3", "=3", "is not key=value"),
        ("stps=3", "stps", "unknown key"),
        ("model.term.kind=b", "model.term.kind", "'b' is not one of auto, a+d, off"),
        ("seeds=[1", "seeds", "'[1' is not valid YAML"),
        ("seeds.0=3", "seeds.0", "unknown key"),
        ("steps=many", "steps", "'many' is not a whole number"),
        ("extends=a.yaml", "extends", "unknown key"),
    ],
)
def test_a_wrong_override_is_named(override: str, where: str, what: str):
    with pytest.raises(InputError) as caught:
        load_config(Toy, None, [override])
    assert caught.value.where == f"command line: {where}"
    assert what in caught.value.what


def test_the_file_at_fault_is_the_one_that_says_it(write):
    write("base.yaml", "stepss: 1")
    with pytest.raises(InputError, match=r"^base.yaml: stepss: unknown key"):
        load_config(Toy, write("a.yaml", "extends: base.yaml\nseed: 1"))


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(InputError, match="no such file or directory"):
        load_config(Toy, tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="not a regular file"):
        load_config(Toy, tmp_path)
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_config(Toy, tmp_path / "image.yaml")


def test_circles_are_shown(write):
    write("b/b.yaml", "extends: ../a.yaml")
    with pytest.raises(InputError, match=r"goes in a circle, a.yaml -> b/b.yaml -> b/../a.yaml"):
        load_config(Toy, write("a.yaml", "extends: b/b.yaml"))
    with pytest.raises(InputError, match="goes in a circle"):
        load_config(Toy, write("self.yaml", "extends: self.yaml"))


def test_a_value_that_must_be_given():
    @dataclass
    class Needs:
        scene: str = MISSING

    with pytest.raises(InputError, match=r"^command line: scene: has no value \(give scene=...\)"):
        load_config(Needs, None)
    assert load_config(Needs, None, ["scene=x"]).scene == "x"


EXPERIMENT = """
seeds: [3, 1, 3]
steps: 4
variants:
  full: []
  short: [steps=2, model.term.weight=0]
"""


def test_every_variant_and_seed_in_order_with_the_command_line_on_top(write):
    runs = expand(Toy, write("a.yaml", EXPERIMENT), ["model.term.weight=7"])
    assert [(run.variant, run.seed) for run in runs] == [("full", 3), ("full", 1), ("short", 3), ("short", 1)]
    assert [run.config.seed for run in runs] == [3, 1, 3, 1]
    assert [run.config.steps for run in runs] == [4, 4, 2, 2]
    assert {run.config.model.term.weight for run in runs} == {7.0}


def test_one_variant_or_one_seed(write):
    path = write("a.yaml", EXPERIMENT)
    assert [(run.variant, run.seed) for run in expand(Toy, path, variant="short")] == [("short", 3), ("short", 1)]
    assert [(run.variant, run.seed) for run in expand(Toy, path, ["seed=9"])] == [("full", 9), ("short", 9)]
    assert [(run.variant, run.seed) for run in expand(Toy, path, ["seeds=[8]"], variant="full")] == [("full", 8)]
    assert [(run.variant, run.seed) for run in expand(Toy, write("b.yaml", "seed: 2"))] == [("full", 2)]


def test_the_saved_configuration_of_a_run_is_that_run(write):
    for run in expand(Toy, write("a.yaml", EXPERIMENT)):
        assert expand(Toy, write("saved.yaml", to_yaml(run.config))) == [run]


def test_every_scene_has_every_variant_and_seed(write):
    text = EXPERIMENT + "scenes: [data/fox, data/fox, synthetic:walker, b=other/fox]"
    runs = expand(Toy, write("a.yaml", text), ["seed=5"])
    named = [(scene, variant) for scene in ("fox", "walker", "b") for variant in ("full", "short")]
    assert [(run.scene, run.variant) for run in runs] == named
    assert [run.config.scene for run in runs[::2]] == ["data/fox", "synthetic:walker", "other/fox"]
    for run in runs:
        assert expand(Toy, write("saved.yaml", to_yaml(run.config))) == [run]
    [alone] = expand(Toy, write("a.yaml", text), ["seed=5", "scene=data/fox"], variant="full")
    assert (alone.scene, alone.config.scenes) == ("fox", [])


def test_a_variant_may_have_scenes_of_its_own(write):
    runs = expand(Toy, write("a.yaml", "scenes: [x, y]\nvariants: {all: [], one: ['scenes=[y]']}"))
    assert [(run.scene, run.variant) for run in runs] == [("x", "all"), ("y", "all"), ("y", "one")]


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ("[a/fox, b/fox]", r"scenes: a/fox and b/fox have the same name, 'fox' \(write NAME=SCENE for one of them\)"),
        ("[a/fox.mp4, fox=b]", "have the same name, 'fox'"),
        ("['...']", r"scenes: '...' gives no folder name"),
    ],
)
def test_scenes_that_cannot_be_told_apart(write, scenes, message):
    with pytest.raises(InputError, match=message):
        expand(Toy, write("a.yaml", f"scenes: {scenes}"))


def test_wrong_variants(write):
    with pytest.raises(InputError, match=r"^a.yaml: variants: no variant 'shrt' \(did you mean `short`\?\)"):
        expand(Toy, write("a.yaml", EXPERIMENT), variant="shrt")
    with pytest.raises(InputError, match=r"^b.yaml: variants.x: step: unknown key"):
        expand(Toy, write("b.yaml", "variants: {x: [step=1]}"))
    with pytest.raises(InputError, match=r"^c.yaml: variants.../x: cannot be a folder name"):
        expand(Toy, write("c.yaml", "variants: {../x: []}"))


scalars: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 10**9),
    float: st.floats(0, allow_infinity=False),
    str: st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$\x85\u2028\u2029\ufeff"), max_size=8
    )
    | st.sampled_from(["1e3", "no", "007", "null", "~", "a: b", "[", "1_000", "0x1f", "1:30", "2020-01-01"]),
}
terms = st.builds(Term, weight=scalars[float])
models = st.builds(Model, term=terms, sizes=st.lists(scalars[int], max_size=3), limit=st.none() | scalars[int])
toys = st.builds(
    Toy,
    name=scalars[str],
    seed=scalars[int],
    variants=st.dictionaries(scalars[str], st.lists(scalars[str], max_size=2), max_size=2),
    model=models,
    kinds=st.lists(st.sampled_from(Kind), max_size=3),
    steps=st.integers(0, 99),
)


@given(toys)
def test_yaml_round_trip(tmp_path_factory: pytest.TempPathFactory, config: Toy):
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(to_yaml(config))
    assert load_config(Toy, path) == config


def test_yaml_lists_every_field_and_shows_enums_by_value():
    text = to_yaml(Toy())
    assert [line.split(":")[0] for line in text.splitlines() if line[0] not in " -"] == [
        field.name for field in dataclasses.fields(Toy)
    ]
    assert "kind: auto" in text
    assert "level: 1" in text


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("model.term.weight=.nan", "model.term.weight: nan is not a finite number"),
        ("model.term.weight=.inf", "model.term.weight: inf is not a finite number"),
        ("model.term.weight=-5", "model.term.weight: must not be negative, not -5"),
        ("model.limit=-1", "model.limit: must not be negative, not -1"),
        ("steps=100000000000000000000", "steps: 1e+20 is too large"),
        ("model.sizes=[8, 99999999999]", "model.sizes[1]: 1e+11 is too large"),
        ("name=${oc.env:HOME}", "name: '${oc.env:HOME}' reads what is outside of the settings"),
        ("name='${oc.decode:x}'", "reads what is outside of the settings"),
    ],
)
def test_numbers_are_finite_and_not_negative_and_nothing_is_read_from_outside(override: str, what: str) -> None:
    with pytest.raises(InputError) as error:
        load_config(Toy, None, [override])
    assert what in str(error.value)


def test_what_may_be_negative_says_so() -> None:
    assert load_config(Signed, None, ["offset=-2"]).offset == -2
    with pytest.raises(InputError, match="below: must not be negative"):
        load_config(Signed, None, ["below=-2"])
