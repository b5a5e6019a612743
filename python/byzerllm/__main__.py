"""`python -m byzerllm` is the command line."""

from byzerllm._command_line import main

if __name__ == "__main__":
    raise SystemExit(main())
