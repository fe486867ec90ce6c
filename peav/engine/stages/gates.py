"""The stage that holds the gates: a caption that one refuses is written once more, and dropped where that does not help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peav.engine.configured import configured
from peav.engine.gates import Gate, Written, gates, reason_of
from peav.engine.stage import Columns, Stage, register_stage, take

#: The gates by default.
DEFAULT_GATES = ("Leak", "Degenerate", "SpeechContent", "OtherMedium")


@register_stage
class Gates(Stage):
    """Lets captions pass that no gate refuses.

    It provides `texts`, those that passed, and `verdicts`, one for each that was refused: `{"kind", "gate", "reason", "text",
    "outcome"}`, the outcome being `rewritten`, with `by` the text that took its place, or `dropped`.

    Args:
        gates: names, or `{"class_path": ..., "init_args": {...}}`, in the order in which they are asked.
        rewrite: name of the stage that is asked to write again, with the reasons; none: what is refused is dropped.
        attempts: times that it is asked.
    """

    reads = (
        "texts",
        "speech?",
        "support?",
        "real_transcript",
        "finish?",
        "tags?",
        "candidates?",
        "has_audio",
        "has_video",
    )
    provides = ("texts", "verdicts")

    def __init__(self, gates: Sequence[Any] = DEFAULT_GATES, rewrite: str | None = None, attempts: int = 1) -> None:
        self.gates = [build_gate(config) for config in gates]
        called: dict[str, type[Gate]] = {}
        for gate in self.gates:
            if (other := called.setdefault(gate.reason_name, type(gate))) is not type(gate):
                raise ValueError(
                    f"the gates {other.__name__} and {type(gate).__name__} have one reason_name, {gate.reason_name!r}, under which "
                    "reports would count both: give each its own"
                )
        self.rewrite, self.attempts = rewrite, attempts
        self._writer: Stage | None = None

    @classmethod
    def identity(cls, init_args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the gates, with all their arguments, and the versions of their code."""
        held = [_class_and_arguments(config) for config in init_args["gates"]]
        return {"gates": [[f"{one.__module__}.{one.__qualname__}", one.version, arguments] for one, arguments in held]}

    def bind(self, stages: Mapping[str, Stage]) -> None:
        """Finds the stage that writes again.

        Raises:
            ValueError: if there is none of that name, or a gate needs one that is not there.
        """
        for gate in self.gates:
            gate.bind(stages)
        if self.rewrite is None:
            return
        if self.rewrite not in stages:
            raise ValueError(
                f"Gates: no stage before it is called {self.rewrite!r}, to write again: there are {', '.join(stages)}"
            )
        self._writer = stages[self.rewrite]

    def __call__(self, batch: Columns) -> Columns:
        """Judges a batch."""
        passed: list[dict[str, list[str]]] = [{} for _ in batch["id"]]
        verdicts: list[list[dict[str, Any]]] = [[] for _ in batch["id"]]
        for place, texts in enumerate(batch["texts"]):
            for kind, given in (texts or {}).items():
                for text in [given] if isinstance(given, str) else given:
                    refused = self._judge(batch, place, kind, text)
                    if refused is None:
                        passed[place].setdefault(kind, []).append(text)
                    else:
                        verdicts[place].append(
                            {
                                "kind": kind,
                                "gate": refused[0],
                                "reason": refused[1],
                                "text": str(text)[:500],
                                "outcome": "dropped",
                            }
                        )
        for attempt in range(1, self.attempts + 1):
            again = [place for place, own in enumerate(verdicts) if any(v["outcome"] == "dropped" for v in own)]
            if self._writer is None or not again:
                break
            self._again(batch, again, attempt, passed, verdicts)
        texts = [{kind: own[0] if len(own) == 1 else own for kind, own in one.items()} for one in passed]
        return {"id": batch["id"], "texts": texts, "verdicts": verdicts}

    def _again(
        self,
        batch: Columns,
        again: list[int],
        attempt: int,
        passed: list[dict[str, list[str]]],
        verdicts: list[list[dict[str, Any]]],
    ) -> None:
        if self._writer is None:
            return
        some = take(batch, again)
        some["attempt"] = [attempt] * len(again)
        some["reasons"] = [
            [f"{v['kind']}: {v['reason']}" for v in verdicts[place] if v["outcome"] == "dropped"] for place in again
        ]
        made = self._writer(some)
        by_id = dict(zip(made["id"], made["texts"], strict=True))
        for place in again:
            written = by_id.get(batch["id"][place])
            if not isinstance(written, Mapping):
                continue  # the writer failed: what was refused stays dropped
            for verdict in verdicts[place]:
                given = written.get(verdict["kind"])
                if verdict["outcome"] != "dropped" or not given:
                    continue
                text = given if isinstance(given, str) else given[0]
                refused = self._judge(batch, place, verdict["kind"], text)
                if refused is None:
                    verdict |= {"outcome": "rewritten", "by": text}
                    passed[place].setdefault(verdict["kind"], []).append(text)
                else:
                    verdict["again"] = f"{refused[0]}: {refused[1]}"

    def _judge(self, batch: Columns, place: int, kind: str, text: Any) -> tuple[str, str] | None:
        if not isinstance(text, str):
            return "degenerate", f"it is a {type(text).__name__}, no text"
        columns = {name: values[place] for name, values in batch.items()}
        said = (columns.get("speech") or {}).get("text") or columns.get("real_transcript") or ""
        finish = (columns.get("finish") or {}).get(kind, "")
        caption = Written(batch["id"][place], kind, text, said, finish, columns)
        for gate in self.gates:
            if kind in gate.kinds:
                reason = reason_of(gate, caption)
                if reason is not None:
                    return gate.reason_name, reason
        return None


def _class_and_arguments(config: Any) -> tuple[type[Gate], dict[str, Any]]:
    given = {"class_path": config} if isinstance(config, str) else config
    named = isinstance(given, Mapping) and isinstance(given.get("class_path"), str)
    return configured(gates, given, f"gate {given['class_path'].rpartition('.')[2]}" if named else "a gate")


def build_gate(config: Any) -> Gate:
    """Builds a gate from its name, or its name and arguments.

    Raises:
        ValueError: if there is none of that name, it has no such argument, or says of itself what cannot be.
    """
    cls, arguments = _class_and_arguments(config)
    return usable_gate(cls(**arguments))


def usable_gate(gate: Gate) -> Gate:
    """Returns a gate that says of itself what reports and the stage need.

    Raises:
        ValueError: if it has no name for reports, or its types of captions are none.
    """
    cls = type(gate)
    if not isinstance(gate.reason_name, str) or not gate.reason_name.strip():
        raise ValueError(f"gate {cls.__name__} has no reason_name, by which reports count what it refuses")
    if isinstance(gate.kinds, str) or not gate.kinds or not all(isinstance(kind, str) for kind in gate.kinds):
        raise ValueError(
            f"gate {cls.__name__}: kinds must be types of captions, such as ('audio',), got {gate.kinds!r}"
        )
    return gate
