# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.people import PALETTE, BoxPrompt, Person, Prompt, heights_from_options, people_from_options


def test_options_become_people():
    people = people_from_options("auto", ["2:10,5.5,6", "1:0,1,2,-", "2:4,7,8,+"], ["1:3,0,0,10,20"], ["2=1.65", "1.8"])
    assert [p.id for p in people] == [1, 2]
    assert people[0].prompts == [Prompt(0, 1, 2, False), BoxPrompt(3, 0, 0, 10, 20)]
    assert people[1].prompts == [Prompt(10, 5.5, 6), Prompt(4, 7, 8)] and people[1].height_m == 1.65
    assert people_from_options() == []


def test_people_survive_json(tmp_path):
    person = Person(3, "Zoë", (0.1, 0.2, 0.3), [Prompt(1, 2.0, 3.0, False), BoxPrompt(4, 1.0, 2.0, 3.0, 4.0)], 1.7)
    (tmp_path / "people.json").write_text(json.dumps({"people": [person.to_json(), {"id": 1}]}), encoding="utf-8")
    first, second = people_from_options(str(tmp_path / "people.json"))
    assert second == person and first == Person(1, "Person 1", PALETTE[0])


@pytest.mark.parametrize("options, message", [
    ({"clicks": ["1:2,3"]}, "--click 1:2,3 cannot be read"), ({"clicks": ["0:1,2,3"]}, "--click 0:1,2,3 cannot be read"),
    ({"boxes": ["1:2,3,4,5"]}, "--box 1:2,3,4,5 cannot be read"), ({"heights": ["tall"]}, "--height tall is not a height"),
    ({"heights": ["18"]}, "--height 18 is not a height"), ({"heights": ["."]}, "--height . is not a height"),
    ({"clicks": ["1:0,1.2.3,4"]}, "--click 1:0,1.2.3,4 cannot be read"), ({"boxes": ["1:0,.,4,5,6"]}, "--box 1:0,.,4,5,6 cannot be read"), ({"people": "nothing.json"}, "nothing.json cannot be read")])
def test_options_that_cannot_be_read_are_quoted(options, message):
    with pytest.raises(Body4DError, match=message):
        people_from_options(**options)


@pytest.mark.parametrize("data, message", [
    ([{"name": "x"}], "cannot be read"), ([], "names nobody"), ([{"id": 1}, {"id": 1}], "same id"), ([{"id": 0}], "ids count from 1"), (["x"], "cannot be read"),
    ([{"id": 1, "prompts": {"clicks": [[1]]}}], "cannot be read"), (5, "no list of people"), ({"people": None}, "no list of people"),
    ({"persons": []}, 'no "people" in it'), ([{"id": 1, "height_m": 180}], "180 is not a height in metres"),
    ([{"id": 1, "color": [255, 0, 0]}], "from 0 to 1"), ([{"id": 1, "prompts": {"clicks": [[0, float("nan"), 3]]}}], "nan is not a position"),
    ([{"id": 1, "prompts": {"clicks": [[1.5, 2, 3]]}}], "1.5 is not a whole number"),
    ([{"id": 1, "prompts": {"clicks": [[1, 2, 3, "-"]]}}], "'-' is not true or false")])
def test_people_files_that_cannot_be_read_say_why(tmp_path, data, message):
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(Body4DError, match=message) as error:
        people_from_options(str(tmp_path / "p.json"))
    assert "p.json" in error.value.message and error.value.hint


def test_a_people_file_of_a_windows_editor(tmp_path):
    (tmp_path / "p.json").write_text('[{"id": 1, "name": "Zoë"}]', encoding="utf-8-sig")
    assert people_from_options(str(tmp_path / "p.json")) == [Person(1, "Zoë")]


def test_heights():
    assert heights_from_options(["1.8", "3=0.9m"]) == {0: 1.8, 3: 0.9}
