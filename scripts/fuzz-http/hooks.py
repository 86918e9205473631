"""Loaded by schemathesis: gives half of the requests things that exist, and counts what is answered.

FUZZ_FEED names a JSON file, {"METHOD /path/{template}": [{"path": {...}, "query": {...}}]} and, under "bodies", values by
member name. FUZZ_COUNTS is where the counts are written.
"""

import atexit
import collections
import json
import os
import random

import schemathesis

FEED = json.load(open(os.environ["FUZZ_FEED"], encoding="utf-8"))
CHANCE = random.Random(int(os.environ.get("FUZZ_SEED", "1")))
STATUSES = collections.Counter()
OPERATIONS = collections.defaultdict(collections.Counter)


@schemathesis.hook
def before_call(context, case, kwargs):
    name = f"{case.method.upper()} {case.path}"
    known = FEED["operations"].get(name)
    if known and CHANCE.random() < 0.5:
        one = CHANCE.choice(known)
        case.path_parameters = {**(case.path_parameters or {}), **one["path"]}
        if one["query"]:
            case.query = {**(case.query or {}), **one["query"]}
    if isinstance(case.body, dict):
        for member, values in FEED["bodies"].items():
            if member in case.body and CHANCE.random() < 0.5:
                case.body[member] = CHANCE.choice(values)
    if case.query:
        for member, values in FEED["queries"].items():
            if member in case.query and CHANCE.random() < 0.5:
                case.query[member] = CHANCE.choice(values)


@schemathesis.hook
def after_call(context, case, response):
    STATUSES[response.status_code] += 1
    OPERATIONS[f"{case.method.upper()} {case.path}"][response.status_code] += 1


def write():
    with open(os.environ["FUZZ_COUNTS"], "w", encoding="utf-8") as file:
        json.dump({"statuses": STATUSES, "operations": OPERATIONS}, file)


atexit.register(write)
