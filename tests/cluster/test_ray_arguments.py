"""The arguments of `Workers`: checked, shown, and given to nobody before a pipeline needs them."""

import pickle
import re

import pytest

from highway.errors import ArgumentError
from highway.ray import Workers


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "min is 0; expected a whole number from 1 to 4096"),
        ((2, 1), {}, "max is 1; expected a whole number from 2 to 4096"),
        ((1,), {"cpus": 0}, "cpus is 0; expected more than 0"),
        ((1,), {"cpus": "four"}, "cpus is 'four'"),
        ((1,), {"resources": ["TPU"]}, "resources is ['TPU']; expected a dict"),
        ((1,), {"label_selector": {1: "a"}}, "label_selector is {1: 'a'}; expected a dict"),
        ((1,), {"runtime_env": "pip"}, "runtime_env is 'pip'; expected a dict"),
        ((1,), {"host": ""}, "host is ''; expected an address"),
        ((1,), {"host": "a b"}, "host is 'tcp://a b:*'"),
        ((1,), {"window": 0}, "window is 0"),
        ((1,), {"timeout": -1}, "timeout is -1"),
        ((1,), {"cpu": 2}, "cpu"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Workers(*arguments, **options)


@pytest.mark.parametrize(
    "text",
    [
        "Workers(2)",
        "Workers(2, 64, cpus=0.5)",
        "Workers(1, resources={'TPU': 1}, label_selector={'zone': 'a'}, host='127.0.0.1', timeout=None)",
    ],
)
def test_it_shows_its_arguments(text):
    assert repr(eval(text)) == text
    assert repr(pickle.loads(pickle.dumps(eval(text)))) == text
