"""`python -m atb`."""

from atb.cli.main import main

main()
