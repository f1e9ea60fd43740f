"""Answers of remote players on disk, so that a repeated experiment asks (and pays) once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class AnswerCache:
    """One file an answer, named by the SHA-256 of its request (which holds no key). Safe to share
    between processes: a file is written aside and renamed. An unreadable one counts as absent."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    def _file(self, request: Any) -> Path:
        name = hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"

    def get(self, request: Any) -> str | None:
        try:
            return str(json.loads(self._file(request).read_text(encoding="utf-8"))["answer"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("answer cache: an entry is unreadable (%s) and will be asked for again", error)
            return None

    def put(self, request: Any, answer: str) -> None:
        file = self._file(request)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump({"answer": answer, "request": request}, out, ensure_ascii=False)
        os.replace(aside, file)
