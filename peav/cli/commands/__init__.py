"""peav's own commands, a file each: thin functions over the library, whose docstrings are the help of the command line."""
