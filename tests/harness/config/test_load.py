"""Recipes: what is read, what is refused, and in which words."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import Recipe, RecipeError, dump_recipe, load_recipe
from harness.config.keys import all_keys

BASE = """\
name: test
data:
  train: synthetic:64
student:
  model: ViT-B-32
optim:
  lr: 1e-3
train:
  batch_size: 8
  steps: 4
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write BASE (or another text) as recipe.yaml in the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes = BASE, name: str = "recipe.yaml") -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


def refused(source: str, *overrides: str, **options: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 1e-3),
        ("1e8", 1e8),
        ("1E+2", 100.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("3", 3.0),
        ("1_000", 1000.0),
        ("1.5e-3", 1.5e-3),
    ],
)
def test_floats_are_read_as_yaml_1_2_reads_them(recipe, written, value):
    assert load_recipe(recipe(BASE.replace("1e-3", written))).optim.lr == value
    assert load_recipe(recipe(), [f"optim.lr={written}"]).optim.lr == value


@pytest.mark.parametrize(("written", "value"), [("010", 10), ("10", 10), ("1_0", 10)])
def test_integers_are_decimal(recipe, written, value):
    assert load_recipe(recipe(), [f"seed={written}"]).seed == value


@pytest.mark.parametrize("text", ["no", "2024-01-01", "1:30", "0x10", "1e", "'1e-3'"])
def test_other_plain_scalars_are_text(recipe, text):
    assert load_recipe(recipe(), [f"description={text}"]).description == text.strip("'")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.lr=fast", "optim.lr must be a number, got 'fast'"),
        ("optim.lr='1e-3'", "optim.lr must be a number, got '1e-3'"),
        ("optim.lr=0", "optim.lr must be greater than 0, got 0"),
        ("optim.lr=.nan", "optim.lr must be a finite number"),
        ("optim.lr=true", "optim.lr must be a number, got True"),
        ("optim.lr=", "optim.lr must be a number, got nothing"),
        ("train.steps=3.5", "train.steps must be a whole number, got 3.5"),
        ("train.steps=1e5", "train.steps must be a whole number, got 100000.0; write 100000"),
        ("train.steps=true", "train.steps must be a whole number"),
        ("train.channels_last=yes", "train.channels_last must be true or false, got 'yes'"),
        ("train.precision=fp8", "must be one of 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ("name=a/b", "name must be made of letters"),
        ("name=3", "name must be text, got 3"),
        ("seed=-1", "seed must be greater than or equal to 0"),
        ("data.train=[]", "data.train must be a list with at least one item"),
        ("data.train=[a, 3]", "data.train[1] must be text, got 3"),
        ("data.crop_scale=[0.9]", "data.crop_scale must be a list of two numbers, got [0.9]"),
        ("data.crop_scale=[a, b]", "data.crop_scale[0] must be a number, got 'a'"),
        ("data.crop_scale=[0.9, 0.5]", "low <= high"),
        ("data.crop_scale=[0.9, 1.1]", "data.crop_scale must be in (0, 1]"),
        ("data.augment.scale=[0, 1]", "data.augment.scale must be above 0"),
        ("optim.betas=[0.9, 1]", "optim.betas[1] must be less than 1"),
        ("teacher=big", "teacher must be a mapping with the keys model, pretrained, config, got 'big'"),
        ("student={}", "student.model is missing (open_clip model name"),
        ("student.config={embed_dim: 8}", "student needs `vision_cfg` in its `config`"),
        ("student={model: 'run:x', pretrained: y}", "student takes no `pretrained` beside model: run:x"),
        ("loss.mask_ratio=1", "loss.mask_ratio must be less than 1"),
        ("loss.mask_ratio=-0.1", "loss.mask_ratio must be greater than or equal to 0"),
        ("loss.weights.crd=-1", "loss.weights.crd must be greater than or equal to 0"),
        ("loss.weights={contrastive: 0}", "loss.weights must give at least one term a weight above zero"),
        ("loss.weights.clip_kd=1", "loss.weights.clip_kd must be a known loss term, got 'clip_kd'"),
        (
            "loss.options={affinty: {teacher_scale: 9}}",
            "loss.options.affinty must be a known loss term, got 'affinty'; did you mean affinity?",
        ),
        (
            "loss.options={affinity: {teacher_scale: 9}}",
            "loss.options.affinity belongs to a term without a weight; add it to loss.weights or remove it",
        ),
        (
            "loss={weights: {crd: 1}, options: {crd: {scale: 9}}}",
            "loss.options.crd must be empty, since this term takes",
        ),
        ("loss.weights={bank: 1}", "loss.weights.bank needs a queue_size above 0 among its options"),
        (
            "loss={weights: {bank: 1}, options: {bank: {num_keys: 9}}}",
            "loss.options.bank.num_keys is for loops of your own, as recipes have no keys to set; take queue_size",
        ),
        (
            "loss={weights: {own: 1}, terms: {own: {loss: bank, queue_size: 9, targets: index}}}",
            "loss.terms.own.targets must be teacher, as the data of recipes have no numbers of keys",
        ),
        ("loss={weights: {affinity: 1}, options: {affinity: {scale: 9}}}", "known: student_scale, teacher_scale"),
        (
            "loss={weights: {affinity: 1}, options: {affinity: {teacher_scale: 0}}}",
            "loss.options.affinity.teacher_scale must be above 0, or null for the model's own scale, got 0",
        ),
        (
            "loss.backend=cuda",
            "loss.backend must be a known backend, got 'cuda'; known: auto, chunked, dense, reference, triton",
        ),
        ("loss.backend_options={chunk_size: 8}", "loss.backend_options belong to one backend: name it in loss.backend"),
        ("schedule.warmup_steps=5", "schedule.warmup_steps must not exceed train.steps (4)"),
        ("schedule.min_lr=1", "schedule.min_lr must not exceed optim.lr (0.001), got 1"),
        ("eval.sets=[{name: a, kind: recall, path: b}]", "eval.sets[0].kind must be one of"),
        ("eval.sets=[{name: a, kind: retrieval}]", "eval.sets[0].path is missing"),
        ("eval.sets=[{name: a, kind: retrieval, path: 'synthetic:x'}]", "whole number above 0 in path: synthetic:N"),
        ("eval.sets.0.name=b", "eval.sets must be a list"),
    ],
)
def test_wrong_values_are_refused_with_key_expectation_and_value(recipe, override, says):
    message = refused(recipe(), override)
    assert says in message


def test_an_override_is_named_as_the_place(recipe):
    assert refused(recipe(), "optim.lr=fast").startswith("--set optim.lr=fast: ")
    assert refused(recipe(), "optim={lr: fast}").startswith("--set optim={lr: fast}: optim.lr ")
    assert refused(recipe(), "optimizer.lr=1").startswith("--set optimizer.lr=1: unknown key optimizer")
    assert refused(recipe(), "data.agument.shift=1").startswith("--set data.agument.shift=1: unknown key data.agument")


def test_a_file_and_line_are_named_as_the_place(recipe):
    assert refused(recipe(BASE.replace("1e-3", "fast"))).startswith("recipe.yaml, line 7: optim.lr ")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.stepz=3", "train.steps"),
        ("train.lr=3", "optim.lr"),
        ("lr=3", "optim.lr"),
        ("optimizer.lr=3", "optim"),
        ("train.warmup_step=3", "schedule.warmup_steps"),
        ("loss.weight.crd=1", "loss.weights"),
        ("eval.sets=[{name: a, kind: retrieval, paht: b}]", "eval.sets[0].path"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(recipe, override, meant):
    message = refused(recipe(), override)
    assert "unknown key" in message
    assert f"did you mean {meant}?" in message


def test_an_unknown_key_unlike_any_is_answered_with_the_known_ones(recipe):
    assert "unknown key train.zzz; train has the keys batch_size, accum_freq, p" in refused(recipe(), "train.zzz=1")


def test_an_unknown_key_is_reported_before_the_key_it_leaves_missing(recipe):
    message = refused(recipe(BASE.replace("batch_size", "batchsize")))
    assert message.startswith("recipe.yaml, line 9: unknown key train.batchsize; did you mean train.batch_size?")


def test_an_unknown_loss_term_is_answered_with_the_known_ones(recipe):
    message = refused(recipe(), "loss.weights.crdd=1")
    assert "did you mean crd?" in message
    known = "afd, affinity, bank, contrastive, crd, cross_kd, decoupled_affinity, fd, gd, gram, icl, mfd, relation"
    assert known in message


@pytest.mark.parametrize("length", ["train.epochs=1", "train.steps=null"])
def test_exactly_one_of_steps_and_epochs(recipe, length):
    assert "needs exactly one of steps and epochs" in refused(recipe(), length)


def test_epochs_alone(recipe):
    assert load_recipe(recipe(), ["train.steps=null", "train.epochs=2"]).train.epochs == 2


def test_a_distillation_term_needs_a_teacher(recipe):
    assert "loss.weights.fd needs a teacher" in refused(recipe(), "loss.weights.fd=1")
    assert load_recipe(recipe(), ["loss.weights.fd=1", "teacher.model=ViT-B-16"]).loss.active == ("contrastive", "fd")
    assert load_recipe(recipe(), ["loss.weights.fd=0"]).teacher is None


def test_an_override_of_one_weight_keeps_the_default_ones(recipe):
    assert load_recipe(recipe(), ["loss.weights.fd=0"]).loss.weights == {"contrastive": 1, "fd": 0}


def test_the_released_gd_weight_needs_the_released_variant(recipe):
    gd = ["teacher.model=ViT-B-16", "loss.weights.gd=1e8"]
    says = "--set loss.weights.gd=1e8: loss.weights.gd is 1e+08, which belongs to variant: released; the paper's"
    assert refused(recipe(BASE + "loss: {weights: {contrastive: 1}}\n"), *gd).startswith(says)
    assert load_recipe(recipe(), [*gd, "loss.variant=released"]).loss.weights["gd"] == 1e8


def test_weights_that_are_all_zero_blame_the_mapping(recipe):
    text = BASE + "loss:\n  weights: {contrastive: 0, gd: 0}\n"
    assert refused(recipe(text)).startswith("recipe.yaml, line 12: loss.weights must give at least one")


def test_min_lr_must_not_exceed_loss_lr_either(recipe):
    too_high = ["schedule.min_lr=1e-4", "optim.loss_lr=1e-5"]
    says = "--set schedule.min_lr=1e-4: schedule.min_lr must not exceed optim.loss_lr (1e-05), got 0.0001"
    assert refused(recipe(), *too_high) == says
    assert load_recipe(recipe(), [*too_high, "schedule.kind=constant"]).optim.loss_lr == 1e-5
    assert load_recipe(recipe(), ["schedule.min_lr=1e-4", "optim.loss_lr=1e-4"]).schedule.min_lr == 1e-4


def test_two_eval_sets_of_one_name_are_refused(recipe):
    item = "{name: a, kind: retrieval, path: b}"
    assert "two sets named a" in refused(recipe(), f"eval.sets=[{item}, {item}]")


EVAL = """\
eval:
  sets:
    - {name: shapes, kind: zeroshot, path: shapes}
    - {name: pairs, kind: retrieval, path: pairs}
  every: 2
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("suite=paper", "eval.root is needed beside eval.suite"),
        ("missing=ignore", "eval.missing must be one of 'stop' or 'skip'"),
        ("every=0", "eval.every must be greater than or equal to 1"),
        ("sets=[]", "eval.every has nothing to measure: give eval.sets or eval.suite"),
        ("online=[shapes, pears]", "eval.online names pears, which is none of eval.sets: shapes, pairs"),
        ("best=top1", "eval.best must be SET/METRIC with a metric of top1, top5, mean_recall, map, i2t_r1"),
        ("best=shapes/accuracy", "eval.best must be SET/METRIC with a metric of top1"),
        ("best=shape/top1", "eval.best names shape, which is none of eval.sets: shapes, pairs"),
        ("best=pairs/top1", "eval.best must be a metric of retrieval sets: i2t_r1"),
    ],
)
def test_evaluation_on_the_way_has_its_rules(recipe, change, says):
    assert says in refused(recipe(BASE + EVAL), f"eval.{change}")


def test_best_has_to_be_measured(recipe):
    best = "eval.best=shapes/top1"
    assert "eval.best names shapes, which eval.online leaves out" in refused(
        recipe(BASE + EVAL), best, "eval.online=[pairs]"
    )
    assert "eval.best needs eval.every" in refused(recipe(BASE + EVAL), best, "eval.every=null")
    made = load_recipe(recipe(BASE + EVAL), [best, "eval.online=[shapes]"]).eval
    assert made.best_set_and_metric == ("shapes", "top1") and made.online == ("shapes",)


def test_names_of_a_suite_are_not_known_to_the_recipe(recipe):
    suite = ["eval.suite=paper", "eval.root=data", "eval.best=imagenet1k/top1", "eval.online=[imagenet1k]"]
    assert load_recipe(recipe(BASE + EVAL), suite).eval.suite == "paper"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "recipe.yaml is empty"),
        ("# only a comment\n", "recipe.yaml is empty"),
        ("- a\n- b\n", "must hold a mapping (key: value lines), got a list"),
        ("just words", "must hold a mapping (key: value lines), got a str"),
        (
            BASE + "name: again\n",
            "line 11: not valid YAML: the key name is written twice (first in recipe.yaml, line 1)",
        ),
        (BASE.replace("  lr: 1e-3", "\tlr: 1e-3"), "line 7: not valid YAML"),
        (BASE.replace("lr: 1e-3", "lr: [1"), "not valid YAML: while parsing a flow sequence"),
        (BASE + "teacher: *student\n", "line 11: not valid YAML: aliases (*name) are not supported"),
        ("a: &a {b: *a}\n", "aliases (*name) are not supported"),
        (BASE + "x: !!python/object:os.system {}\n", "line 11: not valid YAML: unknown tag !!python/object:"),
        (BASE + "x: !mine 1\n", "line 11: not valid YAML: unknown tag !mine; write the value without a tag"),
        (BASE + "x: !!timestamp abc\n", "line 11: not valid YAML: unknown tag !!timestamp"),
        (BASE + "seed: !!int abc\n", "line 11: not valid YAML: the tag !!int does not fit its value, got 'abc'"),
        (
            BASE + "seed: !!int [1]\n",
            "line 11: not valid YAML: the tag !!int does not fit its value, got a list or a mapping",
        ),
        (BASE + "x: !!bool maybe\n", "line 11: not valid YAML: the tag !!bool does not fit its value"),
        (BASE + f"x: {'[' * 5000}\n", "line 11: not valid YAML: lists and mappings are nested deeper than 64 levels"),
        (
            "".join(f"{'  ' * depth}a:\n" for depth in range(900)),
            "line 64: not valid YAML: lists and mappings are nested",
        ),
        (BASE + f"seed: {'9' * 5000}\n", "of 5000 characters is out of range, whole numbers have at most 64 bits"),
        (BASE + f"seed: {2**63}\n", "line 11: not valid YAML: '9223372036854775808' is out of range"),
        (BASE.replace("1e-3", "-.5e999"), "line 7: not valid YAML: '-.5e999' is out of range, numbers go up to"),
        (BASE + "---\nname: two\n", "expected a single document"),
        (BASE + "1: 2\n", "line 11: not valid YAML: keys must be plain text"),
        (BASE + "? [a]\n: 2\n", "line 11: not valid YAML: keys must be plain text"),
        (b"\xff\xfe\xfa", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("optim:\n", "(and"),
    ],
)
def test_files_that_hold_no_recipe(recipe, text, says):
    assert says in refused(recipe(text))


def test_a_missing_file_lists_near_names(recipe):
    recipe(name="mine.yaml")
    assert "did you mean mine.yaml?" in refused("mien.yaml")
    assert "did you mean smoke?" in refused("smoek")
    assert "did you mean openmoji/clipkd?" in refused("clipkd")
    assert "shipped recipes: openmoji/baseline" in refused("nothing/like/it")


def test_a_folder_is_no_recipe(recipe):
    recipe(name="run/recipe.yaml")
    assert "run is a folder; a recipe is a YAML file, such as run/recipe.yaml" in refused("run")


def test_inherited_mappings_are_merged_and_lists_replaced(recipe):
    recipe(BASE.replace("synthetic:64", "[a, b]") + "loss: {weights: {contrastive: 2}}\n", "base.yaml")
    child = recipe("inherits: base.yaml\nname: child\ndata: {train: [c]}\nloss: {weights: {fd: 0}}\n")
    loaded = load_recipe(child)
    assert (loaded.name, loaded.data.train, loaded.train.steps) == ("child", ("c",), 4)
    assert loaded.loss.weights == {"contrastive": 2, "fd": 0}


def test_null_undoes_an_inherited_section(recipe):
    recipe(BASE + "teacher: {model: ViT-B-16}\n", "base.yaml")
    assert load_recipe(recipe("inherits: base.yaml\nteacher: null\n")).teacher is None


def test_inherits_is_relative_to_its_file_or_a_shipped_name(recipe):
    recipe(name="deep/base.yaml")
    assert load_recipe(recipe("inherits: base.yaml\n", "deep/child.yaml")).name == "test"
    assert load_recipe(recipe("inherits: smoke\nname: mine\n")).name == "mine"


def test_an_error_in_an_inherited_file_names_that_file(recipe):
    recipe(BASE.replace("1e-3", "fast"), "base.yaml")
    assert refused(recipe("inherits: base.yaml\n")).startswith("base.yaml, line 7: ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inherits: recipe.yaml", "recipe.yaml inherits from itself: recipe.yaml -> recipe.yaml"),
        ("inherits: nope.yaml", "recipe.yaml, line 1: inherits: no recipe nope.yaml"),
        ("inherits: [1]", "recipe.yaml, line 1: inherits must be the path or name of a recipe, or a list of them"),
        *(
            (f"inherits: {none}", "inherits must be the path or name")
            for none in ("", "0", "false", "''", "[smoke, '']")
        ),
        ("inherit: smoke", "did you mean inherits?"),
    ],
)
def test_inheritance_that_cannot_work(recipe, line, says):
    assert says in refused(recipe(line + "\n"))


def test_of_several_parents_the_later_win_and_the_file_wins_over_all(recipe):
    recipe(BASE, "base.yaml")
    recipe("optim: {lr: 2e-3, eps: 1e-7}\ndescription: part\n", "part.yaml")
    loaded = load_recipe(recipe("inherits: [base.yaml, part.yaml]\noptim: {eps: 1e-5}\n"))
    assert (loaded.optim.lr, loaded.optim.eps, loaded.description) == (2e-3, 1e-5, "part")


def test_a_cycle_of_two_is_found(recipe):
    recipe("inherits: recipe.yaml\n", "other.yaml")
    assert "recipe.yaml -> other.yaml -> recipe.yaml" in refused(recipe("inherits: other.yaml\n"))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optim.lr", "expected key=value"),
        ("=3", "expected key=value"),
        ("optim..lr=3", "expected key=value"),
        ("inherits=smoke", "inherits can only be set in a recipe file"),
        ("optim.lr=[1", "--set optim.lr=[1: not valid YAML"),
        ("data.train=/\udce9.csv", "--set data.train=/\udce9.csv: its bytes are not UTF-8; such a path"),
        ("data.\udce9=1", "--set data.\udce9=1: its bytes are not UTF-8"),
        ("name.x=1", "name has no keys inside"),
    ],
)
def test_overrides_that_cannot_work(recipe, override, says):
    assert says in refused(recipe(), override)


def test_the_last_override_wins_and_values_are_yaml(recipe):
    loaded = load_recipe(
        recipe(), ["optim.lr=1", "optim.lr=2e-4", "optim.betas=[0.8, 0.9]", "data.root=a=b", "seed= 7"]
    )
    assert (loaded.optim.lr, loaded.optim.betas, loaded.data.root, loaded.seed) == (2e-4, (0.8, 0.9), "a=b", 7)


def test_data_root_is_filled_in(recipe):
    source = recipe(BASE.replace("synthetic:64", "${data_root}/a.csv"))
    assert load_recipe(source).data.train == ("data/a.csv",)
    assert load_recipe(source, ["paths.data_root=there"]).data.train == ("there/a.csv",)
    assert load_recipe(source, ["paths.data_root=there"], data_root="1e3").data.train == ("1e3/a.csv",)


def test_a_default_weight_follows_the_variant_and_is_a_number_when_resolved(recipe):
    source = recipe(BASE + "teacher: {model: ViT-B-16}\nloss: {weights: {contrastive: 1, gd: default, fd: default}}\n")
    assert load_recipe(source).loss.weights == {"contrastive": 1, "gd": 1e5, "fd": 2000}
    assert load_recipe(source, ["loss.variant=released"]).loss.weights == {"contrastive": 1, "gd": 1e8, "fd": 2000}
    assert "gd: 100000.0" in dump_recipe(load_recipe(source))
    assert "loss.weights.gd must be a number, got 'deflaut'" in refused(source, "loss.weights.gd=deflaut")
    assert "loss.variant must be one of 'paper' or 'released'" in refused(source, "loss.variant=paprika")
    assert "must be a known loss term" in refused(source, "loss.weights.gdd=default")


def test_weights_root_is_filled_in(recipe):
    source = recipe(BASE + "teacher: {model: ViT-B-16, pretrained: '${weights_root}/b.pt'}\n")
    assert load_recipe(source).teacher.pretrained == "weights/b.pt"
    assert load_recipe(source, ["paths.weights_root=/w"]).teacher.pretrained == "/w/b.pt"
    assert "--data-root has no effect" in refused(source, data_root="there")


def test_data_root_without_a_use_and_unknown_variables_are_refused(recipe):
    assert "--data-root has no effect" in refused(recipe(), data_root="there")
    assert "unknown variable ${dataroot}" in refused(recipe(), "data.train=${dataroot}/a.csv")


def test_a_wrong_data_root_is_the_schemas_to_refuse(recipe):
    assert "paths.data_root must be text" in refused(recipe(), "paths.data_root=3", "data.train=${data_root}/x")


@given(
    text=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20),
    lr=st.floats(1e-30, 1e30),
    weights=st.dictionaries(st.sampled_from(["contrastive", "crd", "fd"]), st.floats(1e-9, 1e9), min_size=1),
    pair=st.none() | st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_a_dumped_recipe_loads_to_an_equal_one(tmp_path_factory, text, lr, weights, pair):
    values = {
        "name": "x",
        "description": text.replace("$", ""),
        "data": {"train": ["1e-3", "no", "null", "a: b"], "root": text.replace("$", "")},
        "student": {
            "model": "true",
            "config": {"embed_dim": 1, "vision_cfg": {}, "text_cfg": {"norm_kwargs": {"a": [1, 2.5, None, "1e5"]}}},
        },
        "teacher": {"model": "ViT-B-16"},
        "loss": {"weights": weights},
        "optim": {"lr": lr, "betas": pair},
        "train": {"batch_size": 1, "steps": 1},
    }
    recipe = Recipe.model_validate(values)
    file = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_every_key_is_described():
    keys = list(all_keys())
    assert len(keys) > 50
    assert not [key.name for key in keys if not key.field.description]


def test_recipes_are_frozen(recipe):
    loaded = load_recipe(recipe())
    with pytest.raises(ValueError, match="frozen"):
        loaded.optim.lr = 1


def test_a_file_outside_the_working_folder_is_named_in_full(recipe, monkeypatch, tmp_path):
    file = tmp_path / recipe(BASE.replace("1e-3", "fast"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert re.match(rf"{re.escape(str(Path(file).resolve()))}, line 7: ", refused(str(file)))


INLINE = """\
student:
  model: mine
  config:
    embed_dim: 32
    vision_cfg: {image_size: 32, timm_model_name: resnet18}
    text_cfg:
      width: 32
      hf_tokenizer_name: shipped:openmoji
"""


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "student.config.vision_cfg=small",
            "student.config.vision_cfg must be a mapping of open_clip's vision_cfg keys",
        ),
        ("student.config.text_cfg=[1]", "student.config.text_cfg must be a mapping of open_clip's text_cfg keys"),
        (
            "student.config.text_cfg.hf_tokenizer_name=3",
            "student.config.text_cfg.hf_tokenizer_name must be text, got 3",
        ),
        ("student.config.vision_cfg.layerz=2", "student.config.vision_cfg.layerz is not a key of open_clip's model"),
        ("student.config.vision_cfg.layerz=2", "did you mean layers?"),
        ("student.config.vision_cfg.timm_modelname=x", "did you mean timm_model_name?"),
        ("student.config.text_cfg.vocabsize=2", "did you mean vocab_size?"),
        ("student.config.embed_dims=2", "student.config.embed_dims is not a key of open_clip's model configs; did you"),
        ("student.config.zzz=2", "known: custom_text, embed_dim,"),
        ("student.config.cast_dtype=fp16", "student.config.cast_dtype is not a key"),
        ("teacher={model: t, config: {vision_cgf: {}}}", "teacher.config.vision_cgf is not a key"),
    ],
)
def test_an_inline_config_that_open_clip_would_refuse(recipe, override, says):
    message = refused(recipe(BASE.replace("student:\n  model: ViT-B-32\n", INLINE)), override)
    assert message.startswith("--set ")
    assert says in message


@pytest.mark.parametrize("other", ["null", "{embed_dim: 8, vision_cfg: {}, text_cfg: {}}"])
def test_an_inline_config_does_not_take_the_name_of_another_model(recipe, other):
    source = recipe(BASE.replace("student:\n  model: ViT-B-32\n", INLINE))
    message = refused(source, f"teacher={{model: mine, config: {other}}}")
    assert message.startswith("recipe.yaml, line 4: student shares the name mine with a model of another config")


def test_a_misspelt_key_of_an_inline_config_has_its_line(recipe):
    text = BASE.replace("student:\n  model: ViT-B-32\n", INLINE.replace("width", "widht"))
    assert refused(recipe(text)) == (
        "recipe.yaml, line 10: student.config.text_cfg.widht is not a key of open_clip's model configs; "
        "did you mean width?"
    )


def test_an_unknown_option_of_a_backend_is_refused_with_the_known_ones(recipe):
    message = refused(recipe(), "loss={backend: chunked, backend_options: {tile: 8}}")
    assert "loss.backend_options has no option 'tile' for backend chunked; known: chunk_size" in message


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_numbers_must_be_finite(recipe, value):
    assert "optim.lr must be a finite number, got" in refused(recipe(BASE.replace("1e-3", value)))
    assert "loss.weights.fd must be a finite number, got" in refused(recipe(), f"loss.weights.fd={value}")


@pytest.mark.parametrize(
    "key", ["data.image_size", "data.workers", "train.threads", "train.batch_size", "eval.workers"]
)
def test_numbers_that_no_machine_has_are_refused(recipe, key):
    assert f"{key} must be less than or equal to" in refused(recipe(), f"{key}=1000000000")
