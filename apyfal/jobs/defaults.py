"""Defaults of jobs: the values of the configuration, and those of `start`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from apyfal.units import parse_duration, parse_size

if TYPE_CHECKING:
    from apyfal.config.configuration import Configuration
    from apyfal.definition.definition import Definition

__all__ = ["JobDefaults"]


class JobDefaults:
    """The defaults of one accelerator's jobs.

    Parameters
    ----------
    definition
        The accelerator's.
    configuration
        Its sections ``[process.NAME]`` and ``[configuration.NAME]`` are read.
    memory_limit
        Bytes, or text with a unit; overrides the configuration. ``None``: not given.

    Attributes
    ----------
    memory_limit
        Bytes of pinned memory that a job may use; ``None``: no limit.
    copy
        Whether a job may copy data that a card cannot use in place.
    """

    def __init__(self, definition: Definition, configuration: Configuration, memory_limit: int | str | None) -> None:
        self._definition = definition
        self._of_process = configuration.section(f"process.{definition.name}")
        self._of_start = configuration.section(f"configuration.{definition.name}")
        limit = memory_limit if memory_limit is not None else self._of_process.text("memory_limit", None)
        self.memory_limit = None if limit is None else parse_size(limit)
        self.copy = self._of_process.boolean("copy", True)
        self._started: dict[str, object] = {}

    @cached_property
    def timeout(self) -> float | None:
        """Seconds that a job may take; ``None``: no limit."""
        text = self._of_process.text("timeout", None)
        return None if text is None else parse_duration(text)

    @cached_property
    def _configured(self) -> dict[str, str]:
        known = self._definition.parameters
        return {key: value.text for key, value in self._of_process.items() if key in known}

    @property
    def data(self) -> str | None:
        """Return the URL of what `start` loads into the device's memory; ``None``: nothing."""
        return self._of_start.text("src", None)

    def for_start(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Return the parameters of a call of `start`, with the configuration's.

        Raises
        ------
        ParameterError
            The accelerator has no such parameter.
        """
        configured = {key: value.text for key, value in self._of_start.items() if key != "src"}
        chosen = {**configured, **parameters}
        unknown = chosen.keys() - self._definition.parameters.keys()
        if unknown:
            self._definition.validate_parameters(**{name: chosen[name] for name in unknown})
        return chosen

    def start(self, parameters: dict[str, object]) -> None:
        """Use these parameters as defaults of jobs from now on."""
        self._started = parameters

    def complete(self, parameters: Mapping[str, object]) -> dict[str, object]:
        """Return a job's parameters with the defaults that the configuration and `start` give."""
        return {**self._configured, **self._started, **parameters}
