"""Lists given twice, as in `--method chefer --method rollout`, of which the second would count without a word."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption

from vitrail.core.errors import InvalidInputError


class OnceCommand(TyperCommand):
    """A command that refuses a comma-separated option that is given twice. Of other options, the last one counts, as in most programs."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # Completion parses unfinished lines.
            *_, given = self.make_parser(ctx).parse_args(list(args))
            for option, count in Counter(given).items():
                if count > 1 and isinstance(option, TyperOption) and "comma" in (option.help or ""):
                    raise InvalidInputError(
                        f"expected {option.opts[0]} once, with values separated by commas, got it {count} times"
                    )
        return super().parse_args(ctx, args)
