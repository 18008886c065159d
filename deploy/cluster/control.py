"""How another terminal speaks with the cluster that is up: `status`, `roll`, `scale`, `down`.

A socket in a folder of its own that only its owner can enter; `control.json` in the cluster's folder says where. One
line of JSON is asked; lines of JSON are answered: {"say": text} while something is done, and a last one with "result"
or "error".
"""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

#: What is done at somebody's wish: the arguments, and who wants to hear how it goes; what it gives goes into JSON.
Action = Callable[[Mapping[str, Any], Callable[[str], None]], Any]


class NotUp(Exception):
    """No cluster is up in this folder."""


class Failed(Exception):
    """The cluster could not do what it was asked; the message says why."""


@contextmanager
def listening(folder: Path, actions: Mapping[str, Action]) -> Iterator[None]:
    """Take orders while the block lasts."""
    place = Path(tempfile.mkdtemp(prefix="books-"))  # short: a socket's path has 107 characters at most
    note = folder / "control.json"

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._write(_obey(self.rfile.readline(), actions, lambda text: self._write({"say": text})))

        def _write(self, answer: Mapping[str, Any]) -> None:
            try:
                self.wfile.write(json.dumps(answer).encode() + b"\n")
            except OSError:
                self.wfile.close()  # they went away; what was begun is done all the same

    try:
        with socketserver.ThreadingUnixStreamServer(str(place / "socket"), Handler) as server:
            server.daemon_threads = True
            server.block_on_close = False  # `down` is answered by the end of the connection
            note.write_text(json.dumps({"socket": str(place / "socket")}))
            threading.Thread(target=server.serve_forever, name="control", daemon=True).start()
            try:
                yield
            finally:
                server.shutdown()
    finally:
        note.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)


def _obey(line: bytes, actions: Mapping[str, Action], say: Callable[[str], None]) -> dict[str, Any]:
    try:
        wish = json.loads(line)
        return {"result": actions[wish["do"]](wish, say)}
    except Exception as error:  # whatever it is, whoever asked has to hear of it
        return {"error": f"{type(error).__name__}: {error}"}


def ask(folder: Path, do: str, say: Callable[[str], None] = lambda _: None, **arguments: Any) -> Any:
    """What the cluster in this folder answers. Raises NotUp, Failed."""
    try:
        place = json.loads((folder / "control.json").read_text())["socket"]
    except FileNotFoundError:
        raise NotUp from None
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        try:
            connection.connect(place)
        except OSError:  # it was killed, and its note stayed
            raise NotUp from None
        connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        for line in connection.makefile():
            answer = json.loads(line)
            if "say" in answer:
                say(answer["say"])
            elif "error" in answer:
                raise Failed(answer["error"])
            else:
                return answer["result"]
    return None
