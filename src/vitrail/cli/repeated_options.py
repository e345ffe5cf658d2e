"""Options given twice, as in `--method chefer --method rollout`, of which the second would count without a word."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption

from vitrail.cli.panels import OUTPUT, SPEED
from vitrail.core.errors import InvalidInputError


class OnceCommand(TyperCommand):
    """A command that refuses two values for an option of one value.

    Options of output and speed change no result: there the last value counts, as in most programs.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # Completion parses unfinished lines.
            *_, given = self.make_parser(ctx).parse_args(list(args))
            for option, count in Counter(given).items():
                if count > 1 and isinstance(option, TyperOption) and _takes_one(option):
                    several = ", with values separated by commas" if "comma" in (option.help or "") else ""
                    raise InvalidInputError(f"expected {option.opts[0]} once{several}, got it {count} times")
        return super().parse_args(ctx, args)


def _takes_one(option: TyperOption) -> bool:
    return not (option.multiple or option.is_flag or option.rich_help_panel in (OUTPUT, SPEED))
