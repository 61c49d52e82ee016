"""One stage of a definition → `StagePlan`: defaults filled in, our extensions read, everything typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.definition import expressions, units, variables
from orchestrator.errors import DefinitionError, nearest
from orchestrator.model import (
    Definition,
    Expectation,
    FailureClass,
    FileSpec,
    Repeat,
    Resources,
    RetryRule,
    StageKind,
    StagePlan,
)

_RETRY_NAMES = {f.value: f for f in FailureClass if f not in (FailureClass.CANCELLED,)}
_RETRY_KEYS = ("most", "delay", "factor", "delayMax", "exitCodes")
_RESOURCE_KEYS = ("nodes", "ranksPerNode", "gpusPerRank", "coresPerRank", "memory", "walltime")
_EXPECT_KEYS = ("path", "opens", "dataset", "shape", "dtype", "finite", "minSize", "newer", "nonconstant")
_OPENS = ("hdf5", "zarr", "png", "npy", "json", "tiff")
_NO = ("false", "no", "0", "off")

LOST = RetryRule(FailureClass.LOST, 3)
_KERNEL_RETRIES = (RetryRule(FailureClass.TRANSIENT, 2, delay_s=5.0), RetryRule(FailureClass.BAD_OUTPUT, 1))


class Reader:
    """Reads the stages of one definition; every complaint says where it is."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition

    def refuse(self, sentence: str, stage: str, key: str = "", hint: str = "") -> DefinitionError:
        lines = self._definition.lines
        line = lines.get((stage, key)) or lines.get((stage, ""), 0)
        return DefinitionError(sentence, hint, file=self._definition.source, line=line, stage=stage, key=key)

    def read(self, name: str) -> StagePlan:
        """Everything of the stage but what it runs after."""
        raw = self._definition.stages[name]
        kind = next(k for k in StageKind if k.value in raw)
        arguments = dict(raw.get("arguments") or {})
        if kind is StageKind.TRANSFER:
            arguments = self._transfer(name, raw["transfer"])
        command = raw["command"] if kind is StageKind.COMMAND else ""
        return StagePlan(
            name,
            kind,
            command=command,
            call=raw[kind.value] if kind in (StageKind.KERNEL, StageKind.FUNCTION, StageKind.WORKFLOW) else "",
            arguments=arguments,
            working_dir=raw.get("workingDir") or ".",
            data_dir=raw.get("dataDir") or "$workingDir",
            files=_files(raw),
            captures=tuple(raw.get("outputVariableRegexList") or ()),
            run_if=self._condition(name, "runIf", raw.get("runIf")),
            repeat=self._repeat(name, raw),
            per_file="filePath" in (*variables.names(command), *variables.names_in(arguments)),
            parallel=str(raw.get("parallelExec", True)).lower() not in _NO,
            site=raw.get("site") or "",
            user_account=raw.get("userAccount") or "",
            resources=self._resources(name, raw.get("resources") or {}),
            retries=self._retries(name, raw.get("retries"), kind),
            timeout_s=self._quantity(name, "timeout", units.seconds, raw.get("timeout") or 0),
            expect=self._expect(name, raw, newer=kind is not StageKind.TRANSFER),
            inputs=tuple(raw.get("inputs") or ()),
            outputs=tuple(raw.get("outputs") or ()),
        )

    def _quantity(self, stage: str, key: str, read: Any, value: Any) -> Any:
        try:
            return read(value)
        except ValueError as error:
            raise self.refuse(str(error), stage, key) from None

    def _known(self, stage: str, key: str, given: Any, known: Iterable[str], what: str) -> None:
        """Inside our own extensions an unknown key is a mistake, not somebody else's."""
        known = tuple(known)
        if not isinstance(given, Mapping):
            raise self.refuse(f"{what} is a dict, not {given!r}.", stage, key)
        for name in given:
            if name not in known:
                hint = nearest(name, known) or f" It knows {', '.join(known)}."
                raise self.refuse(f"{what} has no {name!r}.{hint}", stage, key)

    def _condition(self, stage: str, key: str, value: Any) -> str:
        if value is None or value is True or value == "":
            return ""
        text = "False" if value is False else value
        try:
            expressions.parse(text)
        except DefinitionError as error:
            raise self.refuse(error.sentence, stage, key, error.hint) from None
        return str(text)

    def _repeat(self, stage: str, raw: Mapping[str, Any]) -> Repeat | None:
        if raw.get("repeatUntil") is None:
            return None
        until = self._condition(stage, "repeatUntil", raw["repeatUntil"]) or "True"
        period_s = float(raw["repeatPeriod"])
        if not 0 <= period_s < 1e9:
            raise self.refuse("It must be a number of seconds.", stage, "repeatPeriod")
        return Repeat(period_s, until, int(raw["maxRepeats"]))

    def _transfer(self, stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
        self._known(stage, "transfer", given, ("from", "to", "checks"), "A transfer")
        for key in ("from", "to"):
            if not isinstance(given.get(key), str) or not given[key]:
                raise self.refuse(f"A transfer needs {key!r}, a path.", stage, "transfer")
        return dict(given)

    def _resources(self, stage: str, given: Mapping[str, Any]) -> Resources:
        self._known(stage, "resources", given, _RESOURCE_KEYS, "The resources")
        counts = {}
        for key, default, least in (
            ("nodes", 1, 1),
            ("ranksPerNode", 1, 1),
            ("gpusPerRank", 0, 0),
            ("coresPerRank", 1, 1),
        ):
            value = given.get(key, default)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1_000_000:
                raise self.refuse(
                    f"{key} must be a whole number of at least {least}, not {value!r}.", stage, "resources"
                )
            counts[key] = value
        return Resources(
            nodes=counts["nodes"],
            ranks_per_node=counts["ranksPerNode"],
            gpus_per_rank=counts["gpusPerRank"],
            cores_per_rank=counts["coresPerRank"],
            memory_bytes=self._quantity(stage, "resources", units.size_bytes, given.get("memory", 0)),
            walltime_s=self._quantity(stage, "resources", units.seconds, given.get("walltime", 0)),
        )

    def _retries(self, stage: str, given: Any, kind: StageKind) -> tuple[RetryRule, ...]:
        rules = {LOST.failure: LOST}
        if kind in (StageKind.KERNEL, StageKind.TRANSFER):
            rules.update({r.failure: r for r in _KERNEL_RETRIES})
        if isinstance(given, int):
            given = {FailureClass.TRANSIENT.value: given}
        self._known(stage, "retries", given or {}, _RETRY_NAMES, "The retries")
        for name, value in (given or {}).items():
            rule = {"most": value} if isinstance(value, int) else value
            self._known(stage, "retries", rule, _RETRY_KEYS, f"The retries for {name!r}")
            most = rule.get("most", 1)
            codes = rule.get("exitCodes", [])
            if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= 1000:
                raise self.refuse(f"'most' for {name!r} must be a whole number, not {most!r}.", stage, "retries")
            if not isinstance(codes, list) or not all(isinstance(c, int) for c in codes):
                raise self.refuse(f"'exitCodes' for {name!r} must be a list of numbers.", stage, "retries")
            failure = _RETRY_NAMES[name]
            rules[failure] = RetryRule(
                failure,
                most,
                delay_s=self._quantity(stage, "retries", units.seconds, rule.get("delay", 1)),
                factor=self._quantity(stage, "retries", units.seconds, rule.get("factor", 2)),
                delay_max_s=self._quantity(stage, "retries", units.seconds, rule.get("delayMax", 300)),
                exit_codes=tuple(codes),
            )
        return tuple(rules.values())

    def _expect(self, stage: str, raw: Mapping[str, Any], *, newer: bool) -> tuple[Expectation, ...]:
        """{path: checks}, [path, …] or [{path, checks}, …]; an output without checks must at least exist."""
        given = raw.get("expect") or {}
        entries: list[tuple[str, Any]] = []
        for entry in given.items() if isinstance(given, dict) else given:
            if isinstance(entry, str):
                entries.append((entry, {}))
            elif isinstance(entry, dict):
                path = entry.get("path")
                if not isinstance(path, str):
                    raise self.refuse("Each entry of the list needs a 'path'.", stage, "expect")
                entries.append((path, entry))
            else:
                entries.append(entry)
        described = {path for path, _ in entries}
        entries += [(path, {}) for path in raw.get("outputs") or () if path not in described]
        return tuple(self._expectation(stage, path, checks or {}, newer) for path, checks in entries)

    def _expectation(self, stage: str, path: str, given: Any, newer: bool) -> Expectation:
        what = f"The check of {path!r}"
        self._known(stage, "expect", given, _EXPECT_KEYS, what)
        opens = given.get("opens", "")
        if opens and opens not in _OPENS:
            raise self.refuse(f"{what}: 'opens' is one of {', '.join(_OPENS)}, not {opens!r}.", stage, "expect")
        shape = given.get("shape")
        if shape is not None and (
            not isinstance(shape, list) or not all(n is None or (isinstance(n, int) and n >= 0) for n in shape)
        ):
            raise self.refuse(f"{what}: 'shape' is a list of lengths, None for any.", stage, "expect")
        finite = given.get("finite")
        if finite is not None and (not isinstance(finite, int | float) or not 0 <= finite <= 1):
            raise self.refuse(f"{what}: 'finite' is a fraction between 0 and 1.", stage, "expect")
        for key in ("newer", "nonconstant"):
            if not isinstance(given.get(key, True), bool):
                raise self.refuse(f"{what}: {key!r} is true or false.", stage, "expect")
        return Expectation(
            path,
            opens=opens,
            dataset=str(given.get("dataset", "")),
            shape=None if shape is None else tuple(shape),
            dtype=str(given.get("dtype", "")),
            finite=None if finite is None else float(finite),
            min_bytes=self._quantity(stage, "expect", units.size_bytes, given.get("minSize", 1)),
            newer=given.get("newer", newer),
            nonconstant=given.get("nonconstant", False),
        )


def _files(raw: Mapping[str, Any]) -> FileSpec | None:
    from orchestrator.definition.files import split_paths

    paths = raw.get("filePathList") or ()
    spec = FileSpec(
        path=raw.get("filePath") or "",
        paths=split_paths(paths) if isinstance(paths, str) else tuple(str(p) for p in paths),
        pattern=raw.get("filePathPattern") or "",
        query=raw.get("fileQueryDict") or {},
    )
    return None if spec == FileSpec() else spec
