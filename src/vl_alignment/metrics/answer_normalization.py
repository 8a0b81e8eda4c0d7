"""The official normalisation of answers before TextVQA compares them: EvalAI's, with all its quirks.

It is the answer processor of the VQA challenge as M4C publishes it. Scores of papers were measured with it, so what
looks like a mistake in it is kept, and each is said where it happens.
"""

import re
from functools import lru_cache

from ..data.answer_vocabulary import word_tokenize

__all__ = ["normalize_answer"]

# Of the published list "," and "?" are left out: `word_tokenize` has removed both before.
PUNCTUATION = ';/[]"{}()=+\\_->@<`!'

# As published the expression is r"(?!<=\d)(\.)(?!\d)". Its first group was meant as a look-behind, "no digit before";
# as written it asks that "<=" and a digit do not follow, which is always so: "3." loses its point as "Ten." does.
PERIOD = re.compile(r"\.(?!\d)")

# As published: sub("", text, re.UNICODE), where the third argument is the count; re.UNICODE is the number 32.
MOST_PERIODS = 32

NUMBERS = {
    word: str(number) for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}

ARTICLES = frozenset({"a", "an", "the"})

# What contractions are written as; they are recognised with any one apostrophe missing: "couldnt've" and "couldn'tve"
# become "couldn't've", while "couldntve" stays. The published list has "Im", "Ive" and two more in capitals besides,
# which never match, because the text is in lower case by then: "im" stays "im".
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTED.split()
    for place, character in enumerate(word)
    if character == "'"
} | {"somebody'd": "somebodyd"}  # published the wrong way round


@lru_cache(maxsize=100_000)
def normalize_answer(answer: str) -> str:
    """Return the answer as EvalAI compares it: "The Cat." becomes "cat", "two" "2", "dont" "don't".

    The steps, with what is odd about them:

    1. `word_tokenize`: lower case, no commas and question marks, a space before "'s". "how's" thus becomes two words
       and differs from "hows", which step 4 turns into "how's".
    2. Punctuation goes: removed where the same character stands beside a space anywhere in the text, else replaced by
       a space. So "e-mail" becomes "e mail", and "e-mail -s" "email s". Published is also that all of it is
       removed from a text with a comma between digits; none is left after step 1.
    3. Periods go unless a digit follows: "u.s.a." becomes "usa", "3.14" stays, "3." becomes "3" (the look-behind is
       broken), and only the first 32 of them go (a flag is passed as the count).
    4. Words: numbers up to ten become digits ("none" becomes 0), articles go, wherever they come from ("a/b" becomes
       "b", "A." becomes ""), contractions get their apostrophe back.

    Args:
        answer: A prediction or a reference.

    Source: EvalAIAnswerProcessor of M4C (MMF, m4c_evaluators), after the VQA challenge's vqaEval.
    """
    text = word_tokenize(answer).replace("\n", " ").replace("\t", " ").strip()
    cleaned = text
    for character in PUNCTUATION:
        beside_space = f"{character} " in text or f" {character}" in text
        cleaned = cleaned.replace(character, "" if beside_space else " ")
    cleaned = PERIOD.sub("", cleaned, count=MOST_PERIODS)
    words = (NUMBERS.get(word, word) for word in cleaned.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
