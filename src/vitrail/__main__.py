"""`python -m vitrail` is `vitrail`."""

from vitrail.cli.main import main

main()
