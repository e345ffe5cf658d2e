import re

import pytest

from vitrail.core.errors import UnknownNameError
from vitrail.core.registry import MAX_LISTED, Registry, unknown_name


@pytest.fixture
def colors():
    registry: Registry[int] = Registry("color")
    for name, value in (("red", 1), ("green", 2), ("blue", 3)):
        registry.register(name)(value)
    return registry


def test_the_decorator_returns_what_it_registers():
    registry: Registry[type] = Registry("color")

    @registry.register("red")
    class Red:
        pass

    assert isinstance(Red, type)
    assert registry["red"] is Red


def test_a_duplicate_is_refused_and_the_first_is_kept(colors):
    with pytest.raises(ValueError, match=r"^color 'red' is registered already, as 1; choose another name$"):
        colors.register("red")(9)
    assert colors["red"] == 1
    assert len(colors) == 3


def test_an_unknown_name_lists_the_choices_and_suggests(colors):
    expected = "unknown color 'gren' (did you mean 'green'?); choose one of: blue, green, red"
    with pytest.raises(UnknownNameError, match=f"^{re.escape(expected)}$"):
        colors["gren"]


def test_an_unknown_name_like_none_other_gets_no_suggestion(colors):
    with pytest.raises(UnknownNameError, match=r"^unknown color 'xyzzy'; choose one of: blue, green, red$"):
        colors["xyzzy"]


def test_an_empty_registry_says_so():
    with pytest.raises(UnknownNameError, match=r"^unknown color 'red'; choose one of: none there are$"):
        Registry("color")["red"]


def test_membership(colors):
    assert "red" in colors
    assert "gren" not in colors
    assert 7 not in colors


def test_get_behaves_like_that_of_a_mapping(colors):
    assert colors.get("red") == 1
    assert colors.get("gren") is None
    assert colors.get("gren", 5) == 5


def test_iteration_is_sorted(colors):
    assert list(colors) == ["blue", "green", "red"]
    assert list(colors.items()) == [("blue", 3), ("green", 2), ("red", 1)]


@pytest.mark.parametrize(("count", "ending"), [(MAX_LISTED, ", n19"), (MAX_LISTED + 1, ", n19, ... (21 in all)")])
def test_a_long_list_is_capped(count, ending):
    choices = [f"n{i:02}" for i in range(count)]
    message = str(unknown_name("thing", "zzz", choices[::-1]))
    assert message == f"unknown thing 'zzz'; choose one of: {', '.join(choices[:MAX_LISTED])}{ending.removeprefix(', n19')}"


def test_a_long_list_shows_similar_names_first():
    choices = [f"unlike{i}" for i in range(1000)] + ["vit_base_patch16_224", "vit_base_patch32_224"]
    message = str(unknown_name("model", "vit_base_patch16_22", choices))
    assert "did you mean 'vit_base_patch16_224'?" in message
    assert message.endswith("choose one of: vit_base_patch16_224, vit_base_patch32_224, ... (1002 in all)")
