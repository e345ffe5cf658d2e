"""Options given twice, as in `--method chefer --method rollout`, of which the second would count without a word."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption

from vitrail.cli.flags import hide_types
from vitrail.core.errors import InvalidInputError

ONCE = {
    *("model", "method", "protocol", "metric", "target", "prompts", "templates", "class_names"),
    *("data", "data_set", "split", "references", "probe", "weights", "masks"),
}
"""Parameters whose second value is meant in addition to the first. Of others, the last value counts, as in most programs."""


class OnceCommand(TyperCommand):
    """A command that refuses a second value of the parameters in `ONCE`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return hide_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # Completion parses unfinished lines.
            *_, given = self.make_parser(ctx).parse_args(list(args))
            for option, count in Counter(given).items():
                if count > 1 and isinstance(option, TyperOption) and option.name in ONCE and not option.multiple:
                    several = ", with values separated by commas" if "comma" in (option.help or "") else ""
                    raise InvalidInputError(f"expected {option.opts[0]} once{several}, got it {count} times")
        return super().parse_args(ctx, args)
