"""VeRL's ways to load a user's object by file or name, and to ask which packages are installed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = [
    "deprecated",
    "is_megatron_core_available",
    "is_msprobe_available",
    "is_nvtx_available",
    "is_sglang_available",
    "is_trl_available",
    "is_vllm_available",
    "load_class_from_fqn",
    "load_extern_object",
    "load_extern_type",
    "load_module",
]


def load_module(module_path: str | None, module_name: str | None = None) -> ModuleType | None:
    """The module at ``pkg://package.module`` (or ``pkg://package/module``), or in the file ``PATH`` or ``file://PATH``.

    A file is executed anew at every call. With ``module_name`` it is also put into ``sys.modules`` under that name, from
    before its execution on, as an import would. None (or ``""``) gives None.

    Raises ``FileNotFoundError`` for a missing file, ``ImportError`` for one that is not Python, ``RuntimeError`` where its
    execution fails or the name is taken by another module.
    """
    if not module_path:
        return None
    if module_path.startswith("pkg://"):
        return importlib.import_module(module_path.removeprefix("pkg://").replace("/", "."))
    path = Path(module_path.removeprefix("file://"))
    if not path.exists():
        raise FileNotFoundError(f"Custom module file not found: {str(path)!r}; give an existing file, or pkg://PACKAGE.MODULE")
    if module_name in sys.modules:
        raise RuntimeError(f"a module named {module_name!r} already exists in sys.modules: load {str(path)!r} under another name")
    name = module_name or f"custom_module_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{str(path)!r} is not a Python file")
    return _executed(spec, keep=module_name is not None)


def _executed(spec: Any, keep: bool) -> ModuleType:
    """The module of ``spec``. While it runs it is in ``sys.modules``, which dataclasses, for one, look into."""
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(spec.name)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        keep = False
        raise RuntimeError(f"Error loading module {spec.origin!r}: {type(error).__name__}: {error}") from error
    finally:
        if not keep:
            sys.modules.pop(spec.name, None)
            if before is not None:
                sys.modules[spec.name] = before
    return module


def load_extern_object(module_path: str | None, object_name: str) -> Any:
    """``object_name`` of the module that :func:`load_module` finds. Raises ``AttributeError`` where it has none."""
    module = load_module(module_path)
    if not hasattr(module, object_name):
        raise AttributeError(f"no object {object_name!r} in module {module_path!r}")
    return getattr(module, object_name)


def load_extern_type(file_path: str | None, type_name: str) -> Any:
    """:func:`load_extern_object` under its older name."""
    warnings.warn("load_extern_type is deprecated: use load_extern_object", FutureWarning, stacklevel=2)
    return load_extern_object(file_path, type_name)


def load_class_from_fqn(fqn: str, description: str = "class") -> type:
    """The class ``package.module.Class``. Raises ``ValueError`` for a name without a dot, ``ImportError`` or
    ``AttributeError`` where the module or the class is missing; ``description`` says in them what it is for."""
    module_name, dot, class_name = fqn.rpartition(".")
    if not dot:
        raise ValueError(f"Invalid {description} {fqn!r}: give its full name, e.g. mypackage.module.ClassName")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ImportError(f"{description} {fqn!r}: module {module_name!r} cannot be imported: {error}") from error
    if not hasattr(module, class_name):
        raise AttributeError(f"{description} {fqn!r}: module {module_name!r} has no {class_name!r}")
    return getattr(module, class_name)


def deprecated(replacement: str = "") -> Callable:
    """Decorator: calling the function, or building the class, warns (``FutureWarning``) and names the replacement."""

    def decorate(target: Any) -> Any:
        message = f"{target.__module__}.{target.__qualname__} is deprecated" + (f": use {replacement}" if replacement else "")
        original = target.__init__ if isinstance(target, type) else target

        @functools.wraps(original)
        def warned(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(message, FutureWarning, stacklevel=2)
            return original(*args, **kwargs)

        if not isinstance(target, type):
            return warned
        target.__init__ = warned
        return target

    return decorate


@functools.cache
def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def is_vllm_available() -> bool:
    return _installed("vllm")


def is_sglang_available() -> bool:
    return _installed("sglang")


def is_megatron_core_available() -> bool:
    return _installed("megatron.core")


def is_nvtx_available() -> bool:
    return _installed("nvtx")


def is_trl_available() -> bool:
    return _installed("trl")


def is_msprobe_available() -> bool:
    return _installed("msprobe")
