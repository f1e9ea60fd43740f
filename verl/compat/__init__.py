"""Names that programs written for VeRL import and nothing here uses, re-exported at VeRL's own paths.

Each module says where VeRL has its names. Numbers are VeRL's (0.9.1); where they differ on purpose the docstring and
docs/from_verl_or_ragen.md say how.
"""
