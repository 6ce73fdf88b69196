"""Facts about classes, read from source files."""

import pytest

from harness.config import static

SOURCE = '''
raise RuntimeError("never imported")

@register
class Loss(Base):
    """A loss."""

    name = "one"
    needs = frozenset({"a", "b"})
    nothing = frozenset()
    weight: ClassVar[dict] = {"paper": 1.0}
    computed = make()
    declared: int

    def __init__(self, first, /, second, *, third=3):
        pass

class Plain:
    a: int = 1
    b: "str"
'''


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "losses.py").write_text(SOURCE)
    return static.classes(tmp_path / "losses.py")


def test_literals_are_read_and_computed_values_left_out(classes):
    assert static.constants(classes["Loss"]) == {
        "name": "one",
        "needs": frozenset({"a", "b"}),
        "nothing": frozenset(),
        "weight": {"paper": 1.0},
    }


def test_fields_parameters_and_decorators(classes):
    assert static.fields(classes["Plain"]) == ("a", "b")
    assert static.parameters(classes["Loss"]) == ("first", "second", "third")
    assert static.parameters(classes["Plain"]) == ()
    assert static.is_decorated(classes["Loss"], "register") and not static.is_decorated(classes["Plain"], "register")


def test_a_package_that_is_not_installed_is_named():
    assert static.package_folder("harness").name == "harness"
    with pytest.raises(ModuleNotFoundError, match="no_such_package") as caught:
        static.package_folder("no_such_package")
    assert caught.value.name == "no_such_package"
