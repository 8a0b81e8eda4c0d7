from collections import Counter

import numpy as np

from vl_alignment.data.blocks.human_answers import human_answers
from vl_alignment.data.blocks.scene import make_scene
from vl_alignment.data.blocks.text_questions import TextQuestion, make_text_questions
from vl_alignment.data.blocks.text_scene import make_text_scene
from vl_alignment.metrics.answer_normalization import normalize_answer
from vl_alignment.metrics.text_question_answering import text_answer_metrics

SCENES = [make_text_scene(make_scene(5, "test", index, maximum_objects=6)) for index in range(150)]


def asked() -> list[tuple[TextQuestion, list[str]]]:
    draw = np.random.Generator(np.random.PCG64(1)).random
    return [
        (question, human_answers(question, scene, draw)) for scene in SCENES for question in make_text_questions(scene)
    ]


def test_the_ceiling() -> None:
    pairs = asked()
    measured = text_answer_metrics([question.answer for question, _ in pairs], [answers for _, answers in pairs])
    assert 97.0 < measured["accuracy"] < 99.9
    agreed = [sum(normalize_answer(answer) == normalize_answer(q.answer) for answer in found) for q, found in pairs]
    assert min(agreed) >= 1 and np.mean(agreed) > 8.0
    assert 0.01 < np.mean(np.array(agreed) < 4) < 0.1


def test_ten_people_write_and_err_in_their_own_ways() -> None:
    pairs = asked()
    assert all(len(answers) == 10 and all(answers) for _, answers in pairs)
    assert asked() == pairs
    spelled = Counter(answer for question, answers in pairs for answer in answers if normalize_answer(answer) != answer)
    assert any(answer.isupper() for answer in spelled) and any(answer.startswith("the ") for answer in spelled)
    assert "four" in spelled and "Yes" in spelled and "blue." in spelled
    wrong = [
        (question, answer)
        for question, answers in pairs
        for answer in answers
        if normalize_answer(answer) != normalize_answer(question.answer)
    ]
    assert 0.05 < len(wrong) / (10 * len(pairs)) < 0.25
    assert 0.1 < sum(answer == "unanswerable" for _, answer in wrong) / len(wrong) < 0.3
    copied = [(question.answer, answer) for question, answer in wrong if question.copied]
    assert any(answer == f"{true}s" for true, answer in copied)
    assert any(answer in true.split() for true, answer in copied)
    assert {"grey", "ball", "box"} <= {answer for question, answer in wrong if not question.copied}


def test_yes_and_numbers_are_mistaken_for_their_like() -> None:
    for question, answers in asked():
        for answer in map(normalize_answer, answers):
            if question.answer in ("yes", "no"):
                assert answer in ("yes", "no", "unanswerable")
            elif question.answer.isdigit():
                assert answer == "unanswerable" or abs(int(answer) - int(question.answer)) <= 1
