"""`python -m transferscope`: the command line without the console script."""

from transferscope.cli import main

main()
