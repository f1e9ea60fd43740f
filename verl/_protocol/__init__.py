"""Parts of :mod:`verl.protocol`; import the public names from there."""
