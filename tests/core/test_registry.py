import re

import pytest

from vitrail.core.errors import UnknownNameError
from vitrail.core.registry import MAX_LISTED, Registry, unknown_name


@pytest.fixture
def colours():
    registry: Registry[int] = Registry("colour")
    for name, value in (("red", 1), ("green", 2), ("blue", 3)):
        registry.register(name)(value)
    return registry


def test_the_decorator_returns_what_it_files():
    registry: Registry[type] = Registry("colour")

    @registry.register("red")
    class Red:
        pass

    assert isinstance(Red, type)
    assert registry["red"] is Red


def test_a_duplicate_is_refused_and_the_first_stays(colours):
    with pytest.raises(ValueError, match=r"^colour 'red' is registered already, as 1; choose another name$"):
        colours.register("red")(9)
    assert colours["red"] == 1
    assert len(colours) == 3


def test_an_unknown_name_lists_the_choices_and_suggests(colours):
    expected = "unknown colour 'gren' (did you mean 'green'?); choose one of: blue, green, red"
    with pytest.raises(UnknownNameError, match=f"^{re.escape(expected)}$"):
        colours["gren"]


def test_an_unknown_name_like_none_other_gets_no_suggestion(colours):
    with pytest.raises(UnknownNameError, match=r"^unknown colour 'xyzzy'; choose one of: blue, green, red$"):
        colours["xyzzy"]


def test_an_empty_registry_says_so():
    with pytest.raises(UnknownNameError, match=r"^unknown colour 'red'; choose one of: none there are$"):
        Registry("colour")["red"]


def test_membership(colours):
    assert "red" in colours
    assert "gren" not in colours
    assert 7 not in colours


def test_get_follows_the_manners_of_a_mapping(colours):
    assert colours.get("red") == 1
    assert colours.get("gren") is None
    assert colours.get("gren", 5) == 5


def test_iteration_is_sorted(colours):
    assert list(colours) == ["blue", "green", "red"]
    assert list(colours.items()) == [("blue", 3), ("green", 2), ("red", 1)]


@pytest.mark.parametrize(("count", "ending"), [(MAX_LISTED, ", n19"), (MAX_LISTED + 1, ", n19, ... (21 in all)")])
def test_a_long_list_is_capped(count, ending):
    choices = [f"n{i:02}" for i in range(count)]
    message = str(unknown_name("thing", "zzz", choices[::-1]))
    assert message == f"unknown thing 'zzz'; choose one of: {', '.join(choices[:MAX_LISTED])}{ending.removeprefix(', n19')}"


def test_a_long_list_shows_the_near_names_before_all_others():
    choices = [f"unlike{i}" for i in range(1000)] + ["vit_base_patch16_224", "vit_base_patch32_224"]
    message = str(unknown_name("model", "vit_base_patch16_22", choices))
    assert "did you mean 'vit_base_patch16_224'?" in message
    assert message.endswith("choose one of: vit_base_patch16_224, vit_base_patch32_224, ... (1002 in all)")
