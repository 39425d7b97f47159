"""What a command line asks for, a training or a campaign, whose plan is a list of trainings in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any

from csiemu.training.campaign import Campaign
from csiemu.training.job import TrainingJob
from csiemu.training.member import label, placed
from csiemu.training.options import Option, job_of, options, options_of
from csiemu.training.share import SHARE_OPTIONS, Share
from shared.checkpoints import check_name
from shared.errors import CsiError, InvalidInput
from shared.schemes import scheme_class

_ITS_OWN = {"checkpoints", "state"}
"""Options that a campaign sets itself."""

CAMPAIGN_OPTIONS = [
    dataclasses.replace(option, default=None if option.default is MISSING else option.default)
    for option in options_of(Campaign)
]
"""Those that a command line has beside the options of a training."""


def asked(given: Mapping[str, Any], parse: Callable[[str], Any]) -> TrainingJob | Campaign:
    """What options ask for: field -> value, None where the option is not given.

    Args:
        parse: the plan's content from its text; raises ValueError for what is none.

    Raises:
        InvalidInput, NotFound: options or plan are not allowed.
    """
    values = {field: value for field, value in given.items() if value is not None}
    own = {option.field: values.pop(option.field) for option in CAMPAIGN_OPTIONS if option.field in values}
    shares = {option.field: values.pop(option.field) for option in SHARE_OPTIONS if option.field in values}
    if "campaign" in own:
        if "name" in values:
            raise InvalidInput(f"name: '{values['name']}' and campaign: {own['campaign']} cannot both be given")
        return _planned(Campaign(**own), values | shares, parse)
    for field, value in (own | shares).items():
        raise InvalidInput(f"{field}: {value} is for a campaign; name its plan with --campaign")
    if "name" not in values:
        raise InvalidInput("name: it is missing; name a design or a scheme, or a plan with --campaign")
    return job_of(values)


def _planned(campaign: Campaign, given: dict[str, Any], parse: Callable[[str], Any]) -> Campaign:
    """The campaign with the trainings of its plan, to which the command line gives what they do not name."""
    path = campaign.campaign
    try:
        plan = parse(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"campaign: {path} cannot be read: {error}") from None
    if not isinstance(plan, list) or not plan:
        raise InvalidInput(f"campaign: {path} is not a list of trainings")
    jobs: dict[str, tuple[TrainingJob, Share]] = {}
    for number, entry in enumerate(plan, 1):
        where = f"campaign: training {number}"
        values = given | _read_entry(where, entry)
        for field in _ITS_OWN & values.keys():
            raise InvalidInput(f"{where}: {field}: {values[field]}; a campaign sets it itself")
        try:
            share = Share(
                **{option.field: values.pop(option.field) for option in SHARE_OPTIONS if option.field in values}
            )
            job = job_of(values)
            share.gpus(job.device)
            scheme_class(job.design.scheme)
            check_name(job.saved_as)
            _ = job.chosen
        except CsiError as error:
            raise type(error)(f"{where}: {error}") from None
        if label(job) in jobs:
            raise InvalidInput(f"{where}: {label(job)} is there twice; name another with as or version")
        jobs[label(job)] = placed(job, campaign.out), share
    planned, shares = zip(*jobs.values(), strict=True)
    return dataclasses.replace(campaign, jobs=planned, shares=shares)


def _read_entry(where: str, entry: object) -> dict[str, Any]:
    """Field -> value of a training in a plan, which names options as a command line does."""
    by_name = {option.name: option for option in [*options(), *SHARE_OPTIONS]}
    if not isinstance(entry, dict) or "name" not in entry:
        raise InvalidInput(f"{where}: {entry!r} is not a mapping of options with a name")
    found = {}
    for key, value in entry.items():
        option = by_name.get(str(key).replace("-", "_"))
        if option is None:
            raise InvalidInput(f"{where}: option '{key}' is unknown; options are {', '.join(by_name)}")
        found[option.field] = _read(f"{where}: {key}", option, value)
    return found


def _read(what: str, option: Option, value: object) -> Any:
    """A value of an option. YAML has some numbers as text: 1e-3."""
    allowed: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float, str), str: (str,)}
    try:
        if isinstance(value, bool) == (option.kind is bool) and isinstance(value, allowed.get(option.kind, (str,))):
            return option.kind(value)
    except ValueError:
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(option.kind, "a text")
    raise InvalidInput(f"{what}: {value!r} is not {wanted}")
