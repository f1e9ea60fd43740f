"""The machine room: tensors, processes and devices. ``verl`` never imports ``ragen``."""


def __getattr__(name: str):
    # lazily, so that `import verl` does not load torch before a launcher has set its environment
    if name == "DataProto":
        from verl.protocol import DataProto

        return DataProto
    raise AttributeError(f"module 'verl' has no attribute {name!r}")
